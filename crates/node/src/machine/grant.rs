//! What the audit log says of roles that were given or taken away: nobody becomes powerful unseen.

use crate::machine::note::Note;
use identity::Account;
use std::collections::BTreeSet;

/// One note on all roles that an account gained, one on all that it lost, beside the note on the act itself.
pub(super) fn notes(before: Option<&Account>, after: &Account, act: &Note) -> Vec<Note> {
    let roles = |account: &Account| account.grants.iter().map(|grant| grant.role.name()).collect::<BTreeSet<_>>();
    let (old, new) = (before.map(roles).unwrap_or_default(), roles(after));
    let note = |action: &str, fields: Vec<String>| Note { action: action.into(), fields, values: None, ..act.clone() };
    let names =
        |of: &BTreeSet<&str>, without: &BTreeSet<&str>| of.difference(without).map(|&name| name.into()).collect();
    [("role.grant", names(&new, &old)), ("role.revoke", names(&old, &new))]
        .into_iter()
        .filter(|(_, fields): &(&str, Vec<String>)| !fields.is_empty())
        .map(|(action, fields)| note(action, fields))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::{Grant, Login, Role};
    use model::{TenantId, UserId};

    fn account(roles: &[Role]) -> Account {
        Account {
            id: UserId::new(1),
            login: Login::parse("ann").unwrap(),
            person: "Ann".into(),
            tenant: TenantId::PLATFORM,
            grants: roles.iter().map(|role| Grant::whole(*role)).collect(),
            password: serde_json::from_str("\"\"").unwrap(),
            totp: None,
            totp_last: None,
            must_change: false,
            disabled: false,
            epoch: 0,
        }
    }

    #[test]
    fn what_was_gained_and_what_was_lost_is_told_and_nothing_else() {
        let act = Note { action: "user.update".into(), resource: Some("users/ann".into()), ..Note::default() };
        let said = |before: Option<&Account>, after: &Account| {
            let notes = notes(before, after, &act);
            assert!(notes.iter().all(|note| note.resource == act.resource && note.values.is_none()));
            notes.into_iter().map(|note| (note.action, note.fields.join(","))).collect::<Vec<_>>()
        };
        let of = |action: &str, fields: &str| (action.to_owned(), fields.to_owned());
        let (reader, both) = (account(&[Role::Reader]), account(&[Role::Soc, Role::Reader]));
        assert_eq!(said(None, &both), [of("role.grant", "reader,soc")]);
        assert_eq!(said(Some(&reader), &both), [of("role.grant", "soc")]);
        assert_eq!(
            said(Some(&both), &account(&[Role::Agent])),
            [of("role.grant", "agent"), of("role.revoke", "reader,soc")]
        );
        assert_eq!(said(Some(&both), &both), []);
    }
}
