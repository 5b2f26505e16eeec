//! Logging in, being recognised, logging out.

use super::wait::{failed, starting};
use crate::machine::command::{Act, ActChange, Command, Found, Must, Outcome, Refusal, Select, Transact};
use crate::machine::control::{ControlCommand, ControlOutcome, platform};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unauthenticated, Violation};
use api::types::{Caller, ChangePassword, LoggedIn, Login, Me};
use identity::lockout::{Count, Failures, LockoutPolicy};
use identity::password::{self, PasswordHash};
use identity::{Account, Session, SessionError};
use model::{FieldId, FieldState, Merge, Record, RegionId, TableId, TenantId, UserId, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The fields of the platform's table of failed logins.
const FAILED: FieldId = FieldId::new(1);
const CLEARED: FieldId = FieldId::new(2);
const LAST_MS: FieldId = FieldId::new(3);
/// The one field of revocations and of second factors.
const ONLY: FieldId = FieldId::new(1);
/// What the key of an address's failures begins with.
const ADDRESS_PREFIX: &str = "address/";
/// Regions whose counts of failures are read.
const REGIONS_MAX: u32 = 256;

impl Node {
    /// Verifies password, second factor and lockout, and begins a session.
    pub(crate) async fn login(&self, caller: &Caller, request: Login) -> Answer<LoggedIn> {
        let now_ms = self.world.clock.wall_ms();
        let account = self.control().user(&request.login).cloned();
        let address = caller.address.to_canonical().to_string();
        let suspects = suspects(account.as_deref(), &address);
        let note = Note {
            action: "login.failed".into(),
            user: Some(request.login.chars().take(model::limit::NAME_BYTES_MAX).collect()),
            address: Some(address),
            request_id: Some(format!("{:032x}", caller.request)),
            tenant: account.as_ref().and_then(|account| self.tenant_name(account.tenant)),
            node: self.place.id,
            ..Note::default()
        };
        for (key, policy) in &suspects {
            if let Err(locked) = self.failures(key)?.check(now_ms, policy) {
                let why = if key.starts_with(ADDRESS_PREFIX) { "address locked" } else { "account locked" };
                self.record(TenantId::PLATFORM, Note { refused: Some(why.into()), ..note }).await?;
                return Err(Problem::TooMany { retry_after: Duration::from_millis(locked.retry_after_ms) });
            }
        }
        let right = self.check_password(request.password, account.clone()).await;
        let account = match account {
            Some(account) if right && !account.disabled && !account.grants.is_empty() => account,
            other => {
                let why =
                    if other.is_some_and(|account| account.disabled) { "account disabled" } else { "credentials" };
                return Err(self.refuse_login(note, why, &suspects, Unauthenticated::CredentialsRefused).await);
            }
        };
        let second_factor = match (&account.totp, &request.totp) {
            (None, _) => false,
            (Some(_), None) => {
                let note = Note { refused: Some("second factor missing".into()), ..note };
                self.record(TenantId::PLATFORM, note).await?;
                return Err(Problem::Unauthenticated(Unauthenticated::MfaRequired));
            }
            (Some(_), Some(code)) => {
                if self.use_code(&account, code, &note).await.is_err() {
                    return Err(self
                        .refuse_login(note, "second factor", &suspects, Unauthenticated::MfaRequired)
                        .await);
                }
                true
            }
        };
        self.begin(caller, &account, second_factor, note).await
    }

    async fn begin(
        &self,
        caller: &Caller,
        account: &Arc<Account>,
        second_factor: bool,
        note: Note,
    ) -> Answer<LoggedIn> {
        let keys = self.session_keys().ok_or_else(starting)?;
        let now_ms = self.world.clock.wall_ms();
        let issued = keys.issue(account, caller.address, second_factor, now_ms, self.session_ms, &*self.world.entropy);
        let note = Note { action: "login".into(), session: Some(issued.session), ..note };
        // A success clears the account's failures, by naming how many it knows of.
        let known = self.failures(&account_key(account.id))?;
        let own = known.counts().find(|(region, _)| *region == self.region.id).map(|(_, count)| count);
        match own.filter(|count| count.failed > count.cleared) {
            None => self.record(TenantId::PLATFORM, note).await?,
            Some(count) => {
                let set = vec![(CLEARED, Merge::Max, Value::Int(count.failed.cast_signed()))];
                let key = format!("{}/{}", account_key(account.id), self.region.id.get());
                self.keep(platform::FAILURES, key, Must::Nothing, set, Vec::new(), note).await?;
            }
        }
        Ok(LoggedIn {
            token: issued.token,
            expires_ms: issued.expires_ms,
            must_change_password: account.must_change,
            user: self.user_view(account),
        })
    }

    /// Counts a failed login against account and address, in the same commit as its record.
    async fn refuse_login(
        &self,
        note: Note,
        why: &str,
        suspects: &[(String, LockoutPolicy)],
        because: Unauthenticated,
    ) -> Problem {
        let note = Note { refused: Some(why.into()), ..note };
        let now_ms = self.world.clock.wall_ms().cast_signed();
        for (index, (key, _)) in suspects.iter().enumerate() {
            // The account's row or, without an account, the address's: one record for one failed login.
            let action = if index == 0 { note.action.clone() } else { "login.counted".into() };
            let set = vec![(LAST_MS, Merge::Max, Value::Int(now_ms))];
            let increment = vec![(FAILED, 1)];
            let key = format!("{key}/{}", self.region.id.get());
            let note = Note { action, ..note.clone() };
            if let Err(problem) = self.keep(platform::FAILURES, key, Must::Nothing, set, increment, note).await {
                return problem;
            }
        }
        Problem::Unauthenticated(because)
    }

    /// Writes one record of the platform's own tenant.
    pub(crate) async fn keep(
        &self,
        table: TableId,
        key: String,
        must: Must,
        set: Vec<(FieldId, Merge, Value)>,
        increment: Vec<(FieldId, i64)>,
        note: Note,
    ) -> Answer<()> {
        let change = ActChange::Upsert { set, increment };
        let resource = note.resource.clone().unwrap_or_else(|| format!("platform/{}/{key}", table.get()));
        let act = Act { table, key, must, seen: None, change, resource, names: BTreeMap::new() };
        let transact = Transact {
            tenant: TenantId::PLATFORM,
            schema_version: 1,
            acts: vec![act],
            idempotency: None,
            note,
            trace: None,
        };
        let group = self.cluster.group(TenantId::PLATFORM);
        match self.propose_and_see(group, &Command::Transact(transact)).await.map_err(failed)? {
            Outcome::Refused(Refusal::PreconditionFailed(_)) => {
                Err(Problem::conflict("it has changed in the meantime"))
            }
            Outcome::Written(_) => Ok(()),
            other => Err(super::wait::internal("a record of the platform was refused", &format!("{other:?}"))),
        }
    }

    /// Uses up a one-time code: the same code never opens twice, in this region at once, elsewhere once replicated.
    async fn use_code(&self, account: &Account, code: &str, note: &Note) -> Answer<()> {
        let refused = Problem::Unauthenticated(Unauthenticated::MfaRequired);
        let secret = account.totp.as_ref().ok_or(refused.clone())?;
        let key = account.id.get().to_string();
        let known = self.platform_records(platform::FACTORS, &Select::Key(key.clone()))?;
        let record = known.records.first().map(|(_, record)| record);
        let last = record.and_then(|record| number(record, ONLY)).map(i64::cast_unsigned);
        let step = secret.check(code, self.world.clock.wall_ms(), None).map_err(|_| refused.clone())?;
        if last.is_some_and(|last| step.get() <= last) {
            return Err(refused);
        }
        // Two logins with one code at the same moment: the precondition lets only the first through.
        let must = record.map_or(Must::BeAbsent, |record| Must::BeAt(vec![record.version()]));
        let set = vec![(ONLY, Merge::Max, Value::Int(step.get().cast_signed()))];
        let note = Note { action: "login.code".into(), ..note.clone() };
        self.keep(platform::FACTORS, key, must, set, Vec::new(), note).await
    }

    async fn check_password(&self, given: String, account: Option<Arc<Account>>) -> bool {
        let cost = self.password_cost;
        let check = move || password::verify(&given, account.as_ref().map(|account| &account.password), cost);
        match cost {
            // Tens of milliseconds of work: not on a thread that serves others.
            password::Cost::Standard => tokio::task::spawn_blocking(check).await.unwrap_or(false),
            password::Cost::Cheap => check(),
        }
    }

    /// The failures counted under a key, in all regions as far as known here.
    fn failures(&self, key: &str) -> Answer<Failures> {
        let from = format!("{key}/");
        let select = Select::Range { to: Some(format!("{key}0")), from, after: None, limit: REGIONS_MAX };
        let Found { records, .. } = self.platform_records(platform::FAILURES, &select)?;
        let counts = records.iter().filter_map(|(key, record)| {
            let region = key.rsplit_once('/')?.1.parse().ok()?;
            let field = |id| number(record, id).unwrap_or(0).max(0).cast_unsigned();
            let count = Count { failed: field(FAILED), cleared: field(CLEARED), last_ms: field(LAST_MS) };
            Some((RegionId::new(region), count))
        });
        Ok(counts.collect())
    }

    /// Recognises a session by its token and the connection's address.
    pub(crate) async fn authenticate(&self, caller: &Caller) -> Answer<Session> {
        let token = caller.bearer.as_deref().ok_or(Problem::unauthenticated())?;
        let keys = self.session_keys().ok_or_else(starting)?;
        let control = self.control();
        let stands = |session: model::SessionId| {
            let key = Select::Key(session.to_string());
            // What cannot be read cannot be trusted.
            self.platform_records(platform::REVOCATIONS, &key).is_ok_and(|found| found.records.is_empty())
        };
        let verified = keys.verify(
            token,
            caller.address,
            self.world.clock.wall_ms(),
            |session| !stands(session),
            |user| control.users.get(&user).cloned(),
        );
        match verified {
            Ok(session) => Ok(session),
            Err(error) => Err(self.refuse_session(caller, &error).await),
        }
    }

    async fn refuse_session(&self, caller: &Caller, error: &SessionError) -> Problem {
        let holder = error.holder();
        let user = holder.and_then(|holder| self.control().users.get(&holder.user).cloned());
        let note = Note {
            action: "session.refused".into(),
            refused: Some(error.code().into()),
            tenant: holder.and_then(|holder| self.tenant_name(holder.tenant)),
            user: user.map(|account| account.login.as_str().to_owned()),
            session: holder.map(|holder| holder.session),
            address: Some(caller.address.to_canonical().to_string()),
            request_id: Some(format!("{:032x}", caller.request)),
            node: self.place.id,
            ..Note::default()
        };
        let tenant = holder.map_or(TenantId::PLATFORM, |holder| holder.tenant);
        if let Err(unrecorded) = self.record(tenant, note).await {
            return unrecorded;
        }
        Problem::Unauthenticated(match error {
            SessionError::Malformed | SessionError::UnknownKey => Unauthenticated::SessionInvalid,
            SessionError::Expired(_) => Unauthenticated::SessionExpired,
            SessionError::AddressMismatch(_) => Unauthenticated::SessionIpMismatch,
            SessionError::Revoked(_) | SessionError::AccountDisabled(_) => Unauthenticated::SessionRevoked,
        })
    }

    /// Ends a session, here at once and elsewhere as soon as the record arrives.
    pub(crate) async fn logout(&self, caller: &Caller, session: &Session) -> Answer<()> {
        let set = vec![(ONLY, Merge::Max, Value::Int(session.expires_ms().cast_signed()))];
        let note = self.note(caller, session, "logout");
        self.keep(platform::REVOCATIONS, session.id().to_string(), Must::Nothing, set, Vec::new(), note).await
    }

    /// Changes the password of the session's own user; sessions begun before are void.
    pub(crate) async fn change_password(
        &self,
        caller: &Caller,
        session: &Session,
        request: ChangePassword,
    ) -> Answer<()> {
        let account = Arc::clone(session.account());
        let note = self.note(caller, session, "user.password");
        if !self.check_password(request.current, Some(Arc::clone(&account))).await {
            let suspects = suspects(Some(&account), &caller.address.to_canonical().to_string());
            return Err(self.refuse_login(note, "credentials", &suspects, Unauthenticated::CredentialsRefused).await);
        }
        if account.totp.is_some() {
            let code = request.totp.as_deref().ok_or(Problem::Unauthenticated(Unauthenticated::MfaRequired))?;
            self.use_code(&account, code, &note).await?;
        }
        let hash = self.hash_password(request.new, account.login.as_str(), "new").await?;
        let changed =
            Account { password: hash, must_change: false, epoch: account.epoch + 1, ..Account::clone(&account) };
        match self.propose_control(&ControlCommand::UpdateUser { account: changed, note }).await.map_err(failed)? {
            ControlOutcome::User(_) => Ok(()),
            _ => Err(Problem::conflict("the account has changed in the meantime; log in again")),
        }
    }

    /// Checks a new password against the policy and hashes it.
    pub(crate) async fn hash_password(&self, given: String, login: &str, at: &str) -> Answer<PasswordHash> {
        if let Err(broken) = password::check_policy(&given, login) {
            let violations = broken.iter().map(|rule| Violation { at: at.into(), message: rule.to_string() }).collect();
            return Err(Problem::Invalid { violations });
        }
        let (cost, entropy) = (self.password_cost, Arc::clone(&self.world.entropy));
        let hash = move || PasswordHash::new(&given, cost, &*entropy);
        match cost {
            password::Cost::Standard => tokio::task::spawn_blocking(hash)
                .await
                .map_err(|error| super::wait::internal("a password could not be hashed", &error)),
            password::Cost::Cheap => Ok(hash()),
        }
    }

    /// Who the session is.
    pub(crate) fn me(&self, caller: &Caller, session: &Session) -> Me {
        Me {
            user: self.user_view(session.account()),
            address: caller.address.to_canonical().to_string(),
            expires_ms: session.expires_ms(),
            must_change_password: session.account().must_change,
        }
    }

    pub(crate) fn tenant_name(&self, id: TenantId) -> Option<String> {
        self.control().tenants.get(&id).map(|tenant| tenant.name.clone())
    }
}

fn account_key(user: UserId) -> String {
    format!("account/{}", user.get())
}

/// Whom a failed login is counted against.
fn suspects(account: Option<&Account>, address: &str) -> Vec<(String, LockoutPolicy)> {
    let account = account.map(|account| (account_key(account.id), LockoutPolicy::ACCOUNT));
    account.into_iter().chain([(format!("{ADDRESS_PREFIX}{address}"), LockoutPolicy::ADDRESS)]).collect()
}

/// A number in a record of the platform.
fn number(record: &Record, field: FieldId) -> Option<i64> {
    match record.fields.get(&field).map(FieldState::value) {
        Some(Value::Int(number)) => Some(number),
        _ => None,
    }
}
