//! One node of one region in memory, with an analyst who is logged in, and its sinks.

use crate::Node;
use crate::driver::bed::{self, Counted, Furniture};
use crate::machine::command::Must;
use crate::machine::control::platform;
use crate::machine::note::Note;
use api::types::{ApplyPolicy, Caller, IncidentAction, IncidentView, Login, Precondition};
use async_trait::async_trait;
use detection::{Alert, Entity, EntityKind, EventId, EventSummary, IncidentId, RuleReference, SemanticHash, Severity};
use identity::password::{Cost, PasswordHash};
use identity::token::KeyId;
use identity::{Account, Grant, Role, Session, SessionKey};
use model::{TenantId, UserId};
use parking_lot::Mutex;
use pipeline::sink::{Notice, Refused, Sink, Topic};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const PASSWORD: &str = "Unlikely-horse-7-battery";
/// Nothing here takes longer, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3_600);

type Answer = Result<(), Refused>;
type Script = Box<dyn FnMut(&Notice) -> Answer + Send>;

/// A sink that answers as it is told to.
pub(super) struct Scripted {
    name: &'static str,
    calls: bool,
    answer: Mutex<Script>,
    taken: Mutex<Vec<Notice>>,
}

impl Scripted {
    pub(super) fn new(name: &'static str, answer: impl FnMut(&Notice) -> Answer + Send + 'static) -> Arc<Self> {
        let answer: Script = Box::new(answer);
        Arc::new(Self { name, calls: true, answer: Mutex::new(answer), taken: Mutex::default() })
    }
    /// One that writes down what it is told, and calls nobody.
    pub(super) fn file() -> Arc<Self> {
        let answer: Script = Box::new(|_| Ok(()));
        Arc::new(Self { name: "file", calls: false, answer: Mutex::new(answer), taken: Mutex::default() })
    }
    pub(super) fn answers(&self, answer: impl FnMut(&Notice) -> Answer + Send + 'static) {
        *self.answer.lock() = Box::new(answer);
    }
    /// What it took about a topic.
    pub(super) fn taken(&self, topic: Topic) -> Vec<Notice> {
        self.taken.lock().iter().filter(|notice| notice.topic == topic).cloned().collect()
    }
    /// Whom it called, in order.
    pub(super) fn called(&self) -> Vec<String> {
        self.taken(Topic::Page).into_iter().flat_map(|notice| notice.to).collect()
    }
}

#[async_trait]
impl Sink for Scripted {
    fn name(&self) -> &str {
        self.name
    }
    fn wants(&self, _: &Notice) -> bool {
        true
    }
    fn calls_people(&self) -> bool {
        self.calls
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Answer) {
        for (place, notice) in notices.iter().enumerate() {
            if let Err(refused) = (self.answer.lock())(notice) {
                return (place, Err(refused));
            }
            self.taken.lock().push(notice.clone());
        }
        (notices.len(), Ok(()))
    }
}

/// A running node.
pub(super) struct Bed {
    pub(super) node: Arc<Node>,
    pub(super) caller: Caller,
    pub(super) session: Session,
    _bed: bed::Bed,
}

impl Bed {
    pub(super) async fn start(sinks: Vec<Arc<dyn Sink>>) -> Self {
        let entropy = Counted::default();
        let account = Account {
            id: UserId::new(0),
            login: identity::Login::parse("carol").unwrap(),
            person: "Carol".into(),
            tenant: TenantId::PLATFORM,
            grants: [Role::Soc, Role::Auditor].map(Grant::whole).into(),
            password: PasswordHash::new(PASSWORD, Cost::Cheap, &entropy),
            totp: None,
            totp_last: None,
            must_change: false,
            disabled: false,
            epoch: 1,
        };
        let bootstrap = Some((SessionKey::generate(KeyId::FIRST, &entropy), account));
        let bed = bed::Bed::furnished(Furniture { sinks, bootstrap, ..Furniture::default() }).await;
        let node = Arc::clone(&bed.node);
        until("the cluster is set up", async || {
            (!node.control().keys.is_empty() && node.home().group.is_leader()).then_some(())
        })
        .await;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut caller = Caller { address, request: 7, trace: None, bearer: None };
        let login = || Login { login: "carol".into(), password: PASSWORD.into(), totp: None };
        let token = until("carol logs in", async || node.login(&caller, login()).await.ok()).await.token;
        caller.bearer = Some(token);
        let session = node.authenticate(&caller).await.unwrap();
        Self { node, caller, session, _bed: bed }
    }

    pub(super) async fn policy(&self, text: &str) -> Vec<String> {
        let request = ApplyPolicy { text: text.into(), why: None };
        let known = Precondition::Differs(Vec::new());
        let applied = self.node.apply_escalation_policy(&self.caller, &self.session, request, known).await;
        applied.unwrap().warnings
    }

    /// A rule says something about somebody; the incident it is filed under.
    pub(super) async fn happens(&self, number: u8, user: &str, severity: Severity) -> IncidentId {
        let now_ms = self.node.now_ms();
        let entity = Entity { kind: EntityKind::User, name: user.into() };
        let event = EventSummary {
            id: EventId::from_bytes([number; 16]),
            time_ms: now_ms,
            class_uid: 3002,
            activity_id: 1,
            text: "login failed".into(),
            entities: [entity].into(),
        };
        let rule = RuleReference {
            id: format!("rule{number}").into(),
            title: format!("Rule {number}").into(),
            semantic_hash: SemanticHash::from_bytes([number; 32]),
            tags: Vec::new(),
        };
        let alert = Alert::new("platform".into(), rule, severity, BTreeMap::new(), vec![event]);
        let note = Note { action: "alert.raised".into(), ..Note::default() };
        self.node.keep_json(platform::ALERTS, alert.id.to_string(), Must::BeAbsent, &alert, note).await.unwrap();
        until("the alert is filed", async || {
            crate::driver::book::look(&self.node, |desk| desk.board().home(alert.id)).await.unwrap()
        })
        .await
    }

    pub(super) async fn act(&self, id: IncidentId, action: IncidentAction) -> IncidentView {
        self.try_act(id, action).await.unwrap()
    }

    pub(super) async fn try_act(&self, id: IncidentId, action: IncidentAction) -> api::core::Answer<IncidentView> {
        let id = id.to_string();
        self.node.act_on_incident(&self.caller, &self.session, &id, action, Precondition::Unstated).await
    }

    /// What was done to an incident: acts of a kind, with what they say.
    pub(super) async fn acts(&self, id: IncidentId, kind: &str) -> Vec<String> {
        let view = self.node.incident(&self.caller, &self.session, &id.to_string()).await.unwrap();
        view.history.into_iter().filter(|note| note.act == kind).map(|note| note.text).collect()
    }

    /// Calls that came to this.
    pub(super) fn pages(&self, what: &str) -> u64 {
        self.node.metrics.pages.with_label_values(&[what]).get()
    }
}

/// Asks again and again, in virtual time.
pub(super) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
