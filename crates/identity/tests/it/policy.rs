//! What roles may do, what fences hold back, and that capabilities say what Cedar says.

use super::account;
use identity::policy::{FENCES, ROLES, check_policy_text};
use identity::{Account, Action, Capability, FieldMask, Grant, Policy, PolicyError, Resource, Role, Subject};
use model::{FieldId, TableId, TenantId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static POLICY: LazyLock<Policy> = LazyLock::new(Policy::builtin);

fn own(action: Action) -> Resource {
    let tenant = TenantId::new(5);
    if action.is_of_table() { Resource::Table(tenant, TableId::new(1)) } else { Resource::Tenant(tenant) }
}

#[test]
fn each_role_may_do_this_in_its_tenant_and_nothing_else() {
    use Action::*;
    let table: &[(Role, &[Action])] = &[
        (Role::TenantAdmin, &[TableRead, TableManage, UserManage, TenantRead]),
        (Role::Agent, &[RecordRead, RecordWrite, RecordDelete, TableRead]),
        (Role::Reader, &[RecordRead, TableRead]),
        (Role::Soc, &[IncidentRead, IncidentManage, EventIngest, EventSearch]),
        (Role::Auditor, &[AuditRead]),
    ];
    for (role, expected) in table {
        let account = account(5, vec![Grant::whole(*role)]);
        let subject = Subject::new(&account, true);
        for action in Action::ALL {
            let allowed = POLICY.decide(subject, *action, own(*action)).is_ok();
            assert_eq!(allowed, expected.contains(action) || *action == SelfManage, "{role} {action}");
        }
    }
}

#[test]
fn the_platform_is_run_from_its_own_tenant_and_reaches_no_data() {
    use Action::*;
    let frame = [TenantRead, TenantManage, UserManage];
    let admin = account(0, vec![Grant::whole(Role::PlatformAdmin)]);
    for action in Action::ALL {
        let elsewhere = POLICY.decide(Subject::new(&admin, true), *action, own(*action));
        assert_eq!(elsewhere.is_ok(), frame.contains(action), "{action}");
    }
    let platform = Resource::Tenant(TenantId::PLATFORM);
    for (role, action) in
        [(Role::PlatformAdmin, ClusterManage), (Role::PlatformAdmin, ClusterRead), (Role::Soc, ClusterRead)]
    {
        let operator = account(0, vec![Grant::whole(role)]);
        assert!(POLICY.decide(Subject::new(&operator, true), action, platform).is_ok());
        let outsider = account(5, vec![Grant::whole(role)]);
        assert!(POLICY.decide(Subject::new(&outsider, true), action, platform).is_err());
    }
    let misplaced = account(5, vec![Grant::whole(Role::PlatformAdmin), Grant::whole(Role::Agent)]);
    let denied = POLICY.decide(Subject::new(&misplaced, true), RecordRead, own(RecordRead)).unwrap_err();
    assert!(denied.fences.contains("fence-platform"), "{denied:?}");
}

#[test]
fn a_denial_says_what_would_help() {
    let admin = account(5, vec![Grant::whole(Role::TenantAdmin)]);
    let denied = POLICY.decide(Subject::new(&admin, false), Action::UserManage, own(Action::UserManage)).unwrap_err();
    assert!(denied.needs_second_factor() && !denied.needs_password_change());
    let fresh = Account { must_change: true, ..account(5, vec![Grant::whole(Role::Agent)]) };
    let denied = POLICY.decide(Subject::new(&fresh, true), Action::RecordRead, own(Action::RecordRead)).unwrap_err();
    assert!(denied.needs_password_change() && !denied.needs_second_factor());
    let reader = account(5, vec![Grant::whole(Role::Reader)]);
    let denied = POLICY.decide(Subject::new(&reader, true), Action::RecordWrite, own(Action::RecordWrite)).unwrap_err();
    assert!(denied.fences.is_empty(), "no role permits it");
}

#[test]
fn grants_narrow_tables_and_fields_and_add_up() {
    let fields = |ids: &[u16]| ids.iter().copied().map(FieldId::new).collect();
    let narrowed = |role, table, mask| Grant { role, tables: Some(BTreeMap::from([(TableId::new(table), mask)])) };
    let carol = account(
        5,
        vec![
            narrowed(Role::Reader, 1, Some(fields(&[1, 2]))),
            narrowed(Role::Agent, 1, Some(fields(&[3]))),
            narrowed(Role::Agent, 2, None),
        ],
    );
    let capability = Capability::derive(&POLICY, Subject::new(&carol, false));
    let allows = |action, table| capability.allows(action, TableId::new(table)).ok();
    assert_eq!(allows(Action::RecordRead, 1), Some(FieldMask::only(fields(&[1, 2, 3]))));
    assert_eq!(allows(Action::RecordWrite, 1), Some(FieldMask::only(fields(&[3]))));
    assert_eq!(allows(Action::RecordDelete, 1), None, "what is not seen whole is not deleted");
    assert_eq!(allows(Action::RecordDelete, 2), Some(FieldMask::whole()));
    assert_eq!(allows(Action::RecordRead, 3), None);
    assert!(capability.permits(Action::SelfManage, carol.tenant).is_ok());
    assert!(capability.permits(Action::SelfManage, TenantId::new(6)).is_err());
}

#[test]
fn a_policy_names_roles_and_actions_only() {
    check_policy_text(&[ROLES, FENCES].concat()).unwrap();
    let literal = |text: &str, expected: &str| match check_policy_text(text) {
        Err(PolicyError::Literal { policy, literal }) => {
            assert_eq!((policy.as_str(), literal.as_str()), ("x", expected));
        }
        other => panic!("{text}: {other:?}"),
    };
    literal(r#"@id("x") permit (principal == User::"u7", action, resource);"#, r#"User::"u7""#);
    literal(r#"@id("x") permit (principal, action, resource == Table::"t5/tb1");"#, r#"Table::"t5/tb1""#);
    literal(r#"@id("x") permit (principal, action, resource) when { principal == User::"u7" };"#, r#"User::"u7""#);
    literal(r#"@id("x") permit (principal, action, resource in Tenant::"t5");"#, r#"Tenant::"t5""#);
    literal(
        r#"@id("x") forbid (principal, action, resource) unless { [User::"a"].contains(principal) };"#,
        r#"User::"a""#,
    );
}

#[test]
fn a_refused_policy_says_where_and_why() {
    let check = |text: &str| check_policy_text(text).unwrap_err();
    let syntax = check("@id(\"x\")\npermit (principal,\n  action resource);");
    assert!(matches!(syntax, PolicyError::Syntax { line: 3, .. }), "{syntax:?}");
    assert!(matches!(check("permit (principal, action, resource);"), PolicyError::Unnamed { .. }));
    let twice = r#"@id("x") forbid (principal, action, resource); @id("x") forbid (principal, action, resource);"#;
    assert!(matches!(check(twice), PolicyError::Unnamed { .. }));
    let template = r#"@id("x") permit (principal == ?principal, action, resource);"#;
    assert!(matches!(check(template), PolicyError::Unnamed { .. }));
    let unknown = r#"@id("x") permit (principal, action, resource) when { principal.password == "x" };"#;
    assert!(matches!(check(unknown), PolicyError::Invalid { .. }));
    let action = r#"@id("x") permit (principal, action == Action::"record.steal", resource);"#;
    assert!(matches!(check(action), PolicyError::Invalid { .. }));
    assert_eq!(check(&" ".repeat(300_000)), PolicyError::TooLarge);
}

#[test]
fn each_fence_holds_something_back_that_nothing_else_does() {
    let whole = |tenant, role| account(tenant, vec![Grant::whole(role)]);
    let tables = Some(BTreeMap::from([(TableId::new(1), Some([FieldId::new(1)].into()))]));
    let masked = account(5, vec![Grant { role: Role::Agent, tables }]);
    let fresh = Account { must_change: true, ..whole(5, Role::Agent) };
    let (home, other) = (TenantId::new(5), TenantId::new(6));
    let cases = [
        ("fence-tenant", whole(5, Role::Agent), true, Action::RecordRead, Resource::Table(other, TableId::new(1))),
        ("fence-platform", whole(5, Role::PlatformAdmin), true, Action::UserManage, Resource::Tenant(home)),
        (
            "fence-search",
            account(0, vec![Grant::whole(Role::PlatformAdmin), Grant::whole(Role::Soc)]),
            true,
            Action::EventSearch,
            Resource::Tenant(home),
        ),
        ("fence-cluster", whole(5, Role::Soc), true, Action::ClusterRead, Resource::Tenant(home)),
        ("fence-second-factor", whole(5, Role::TenantAdmin), false, Action::UserManage, Resource::Tenant(home)),
        ("fence-must-change", fresh, true, Action::RecordRead, own(Action::RecordRead)),
        ("fence-table", masked.clone(), true, Action::RecordRead, Resource::Table(home, TableId::new(2))),
        ("fence-delete", masked, true, Action::RecordDelete, own(Action::RecordDelete)),
    ];
    let fences: Vec<_> = FENCES.split("@id").skip(1).collect();
    assert_eq!(fences.len(), cases.len());
    for (name, account, second_factor, action, resource) in cases {
        let others = fences.iter().filter(|text| !text.starts_with(&format!("(\"{name}\")")));
        let without: String = others.map(|text| format!("@id{text}")).collect();
        let subject = Subject::new(&account, second_factor);
        let denied = POLICY.decide(subject, action, resource).unwrap_err();
        assert_eq!(denied.fences, [name.to_owned()].into());
        let opened = Policy::parse(&[ROLES, &without].concat()).unwrap().decide(subject, action, resource);
        assert!(opened.is_ok(), "without {name}: {opened:?}");
    }
}

#[test]
fn nothing_is_permitted_by_no_policies() {
    let empty = Policy::parse("").unwrap();
    let carol = account(5, vec![Grant::whole(Role::Agent)]);
    for action in Action::ALL {
        assert!(empty.decide(Subject::new(&carol, true), *action, own(*action)).is_err());
    }
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let fields = prop::option::of(prop::collection::btree_set((0u16..4).prop_map(FieldId::new), 0..3));
    let tables = prop::option::of(prop::collection::btree_map((0u32..4).prop_map(TableId::new), fields, 0..3));
    (0..Role::ALL.len(), tables).prop_map(|(role, tables)| Grant { role: Role::ALL[role], tables })
}

fn any_account() -> impl Strategy<Value = Account> {
    let tenant = prop::sample::select(vec![0u64, 5, 6, u64::MAX]);
    // Also accounts that would never be created: the fences must hold on their own.
    (tenant, prop::collection::vec(any_grant(), 0..4), prop::bool::weighted(0.2))
        .prop_map(|(tenant, grants, must_change)| Account { must_change, ..account(tenant, grants) })
}

fn every_resource() -> impl Iterator<Item = Resource> {
    [0, 5, 6, u64::MAX].into_iter().map(TenantId::new).flat_map(|tenant| {
        let tables = (0..4).map(move |table| Resource::Table(tenant, TableId::new(table)));
        std::iter::once(Resource::Tenant(tenant)).chain(tables)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn capability_says_what_cedar_says_and_fences_hold(account in any_account(), second_factor in any::<bool>()) {
        let subject = Subject::new(&account, second_factor);
        let capability = Capability::derive(&POLICY, subject);
        for (action, resource) in Action::ALL.iter().flat_map(|action| every_resource().map(|resource| (*action, resource))) {
            let decided = POLICY.decide(subject, action, resource);
            prop_assert_eq!(&capability.decide(action, resource), &decided, "{} {:?}", action, resource);
            let Ok(mask) = decided else { continue };
            let (Resource::Tenant(tenant) | Resource::Table(tenant, _)) = resource;
            if tenant != account.tenant {
                prop_assert!(account.tenant == TenantId::PLATFORM);
                let runs_it = account.roles().contains(&Role::PlatformAdmin);
                let may = match action {
                    Action::TenantRead | Action::TenantManage | Action::UserManage => runs_it,
                    Action::EventSearch => !runs_it && account.roles().contains(&Role::Soc),
                    _ => false,
                };
                prop_assert!(may, "{}", action);
            }
            if action != Action::SelfManage {
                prop_assert!(!account.must_change);
                prop_assert!(second_factor || !account.needs_second_factor());
            }
            if let Resource::Table(_, table) = resource {
                for field in (0..4).map(FieldId::new).filter(|field| mask.allows(*field)) {
                    prop_assert!(account.grants.iter().any(|grant| grant.mask(table).allows(field)));
                }
                prop_assert!(action != Action::RecordDelete || mask.is_whole());
            }
        }
    }

    #[test]
    fn arbitrary_policy_text_never_panics(text in "\\PC{0,120}") {
        let _ = check_policy_text(&text);
    }
}

#[test]
fn a_policy_that_nests_too_deep_for_the_stack_is_refused() {
    let policy = |inner: &str| format!("@id(\"x\") permit(principal, action, resource) when {{ {inner} }};");
    for (open, close) in [("(", ")"), ("[", "]"), ("(\")\" == ", ")"), ("( // )\n", ")")] {
        let text = policy(&format!("{}true{}", open.repeat(10_000), close.repeat(10_000)));
        assert_eq!(check_policy_text(&text), Err(PolicyError::TooDeep));
    }
    assert_eq!(check_policy_text(&policy(&format!("{}true{}", "(".repeat(20), ")".repeat(20)))), Ok(()));
}
