//! People are called until somebody acknowledges, whichever node dies; tickets are told outside.

use crate::bed::{Bed, until};
use crate::incidents::{Laboratory, id_of};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What somebody outside was told: by topic and key, how often, and the body.
type Told = Arc<Mutex<BTreeMap<(String, String), (u32, Value)>>>;

const POLICY: &str = "version = 1
[[person]]
login = \"ann\"
email = \"ann@example.org\"
[[person]]
login = \"bob\"
email = \"bob@example.org\"
[[team]]
name = \"soc\"
members = [\"ann\", \"bob\"]
[[schedule]]
name = \"primary\"
time_zone = \"UTC\"
[[schedule.layer]]
members = [\"ann\"]
from = \"2020-01-01\"
hand_over = \"00:00\"
every_days = 7
[[policy]]
name = \"all\"
severity_min = \"medium\"
repeats = 1
fallback = [\"team:soc\"]
[[policy.step]]
notify = [\"schedule:primary\"]
acknowledge_within = \"10s\"
[[policy.step]]
notify = [\"team:soc\"]
acknowledge_within = \"24h\"
";

/// Somebody outside with an address for webhooks.
struct Outside {
    address: SocketAddr,
    told: Told,
}

impl Outside {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let told = Told::default();
        let all = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hear(stream, Arc::clone(&all)));
            }
        });
        Self { address, told }
    }

    /// Has every node of a cluster tell it.
    fn change(&self, bed: &Bed) {
        let secret = bed.path("webhook.secret");
        std::fs::write(&secret, "a secret of a test").expect("a secret can be written");
        for (_, node) in bed.cluster.nodes() {
            let path = bed.config(&node.name);
            let text = std::fs::read_to_string(&path).expect("a configuration can be read");
            let webhook =
                format!("[detection]\nwebhook = {{ url = \"http://{}/\", secret = \"{secret}\" }}", self.address);
            assert!(text.contains("[detection]"), "{text}");
            std::fs::write(&path, text.replace("[detection]", &webhook)).expect("a configuration can be written");
        }
    }

    fn of(&self, topic: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|((of, _), _)| of == topic).map(|(_, (_, body))| body.clone()).collect()
    }

    /// Which steps have told whom.
    fn pages(&self) -> BTreeSet<(u64, u64, String)> {
        let number = |page: &Value, name: &str| page[name].as_u64().unwrap_or_default();
        let place = |page: &Value| {
            let target = page["target"].as_str().unwrap_or_default().to_owned();
            (number(page, "round"), number(page, "step"), target)
        };
        self.of("page").iter().map(place).collect()
    }
}

async fn hear(mut stream: TcpStream, told: Told) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break String::from_utf8_lossy(&bytes.drain(..end + 4).collect::<Vec<u8>>()).to_lowercase();
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().to_owned()
        };
        let length: usize = header("content-length").parse().ok()?;
        while bytes.len() < length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let notice: Value = serde_json::from_slice(&bytes.drain(..length).collect::<Vec<u8>>()).unwrap_or_default();
        let key = (notice["topic"].as_str().unwrap_or_default().to_owned(), header("idempotency-key"));
        told.lock().unwrap().entry(key).or_insert((0, notice["body"].clone())).0 += 1;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
    }
}

/// The node that has a duty.
async fn holder(laboratory: &Laboratory, alive: &[&str], duty: &str) -> String {
    until("somebody has the duty", async || {
        for name in alive {
            let client = laboratory.client(name);
            let status = client.ask(Method::GET, "/v1/cluster/status").try_send().await.ok()?.json();
            let duties = status["duties"].as_array().cloned().unwrap_or_default();
            let found = duties.iter().find(|one| one["duty"] == duty)?["node"].as_str()?.to_owned();
            if alive.contains(&found.as_str()) {
                return Some(found);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn an_escalation_goes_on_when_the_node_that_calls_dies_and_each_step_comes_once() {
    let outside = Outside::start().await;
    let Some(mut laboratory) = Laboratory::start_changed("3", |bed| outside.change(bed)).await else { return };
    let policy = json!({"text": POLICY, "why": "a drill"});
    laboratory.soc.put("/v1/escalation/policy", policy.clone()).await.is(200);
    laboratory.soc.put("/v1/escalation/policy", policy).await.problem(428, "precondition-required");
    let broken = json!({"text": POLICY.replace("team:soc", "team:nobody")});
    let refused = laboratory.soc.ask(Method::PUT, "/v1/escalation/policy").header("if-match", "\"1\"").json(&broken);
    let refused = refused.send().await.problem(422, "invalid").json();
    assert!(refused["violations"][0]["at"].as_str().is_some_and(|at| at.starts_with("line ")), "{refused:#}");
    assert_eq!(laboratory.soc.get("/v1/escalation/on-call").await.json()["schedules"][0]["login"], "ann");

    laboratory.happens("forced", "mallory").await;
    let first = (1, 1, String::from("schedule:primary"));
    until("ann is called", async || outside.pages().contains(&first).then_some(())).await;
    let all = ["eu-1", "eu-2", "eu-3"];
    let calls = holder(&laboratory, &all, "escalation").await;
    laboratory.bed.kill(&calls);
    let alive: Vec<&str> = all.into_iter().filter(|name| *name != calls).collect();
    laboratory.soc = laboratory.client(alive[0]);
    let second: BTreeSet<_> = ["ann", "bob"].map(|login| (1, 2, format!("team:soc/{login}"))).into();
    until("the team is called", async || second.is_subset(&outside.pages()).then_some(())).await;
    let mut expected = second.clone();
    expected.insert(first);
    assert_eq!(outside.pages(), expected);
    assert_eq!(outside.of("page").len(), 3, "each step has one key for each who is told");

    let id = id_of(&laboratory.incident("mallory", 1).await);
    laboratory.act(&id, "acknowledge", json!({})).await;
    let stopped = until("nobody is called any more", async || {
        let found = laboratory.soc.get("/v1/escalations").await.is(200).json();
        found["escalations"].get(0).filter(|one| one["standing"] == "stopped").cloned()
    });
    let stopped = stopped.await;
    assert_eq!((stopped["stopped_by"].clone(), stopped["sent"].clone()), (json!("acknowledged"), json!(3)));
    let timeline = laboratory.soc.get(&format!("/v1/incidents/{id}/timeline")).await.json();
    let told = timeline["moments"].as_array().unwrap().iter().filter(|one| one["note"]["act"] == "notified").count();
    assert_eq!(told, 3, "the incident remembers who was called");
    laboratory.bed.assert_no_panic();
}

#[tokio::test]
async fn what_is_muted_calls_nobody_until_it_is_not() {
    let outside = Outside::start().await;
    let Some(laboratory) = Laboratory::start_changed("1", |bed| outside.change(bed)).await else { return };
    laboratory.soc.put("/v1/escalation/policy", json!({"text": POLICY})).await.is(200);
    let far = json!({"entity": "user:mallory", "until_ms": crate::incidents::now_ms() + 3_600_000, "why": "a drill"});
    let mute = laboratory.soc.post("/v1/mutes", far).await.is(201).json();
    laboratory.happens("wiped", "mallory").await;
    laboratory.happens("forced", "trudy").await;
    laboratory.incident("mallory", 1).await;
    until("somebody is called about the other", async || (!outside.pages().is_empty()).then_some(())).await;
    let about = |user: &str| outside.of("page").iter().any(|page| page.to_string().contains(&format!("user:{user}")));
    assert!(about("trudy") && !about("mallory"));
    let path = format!("/v1/mutes/{}", mute["id"].as_str().unwrap());
    laboratory.soc.ask(Method::DELETE, &path).send().await.is(204);
    until("people are called about what is muted no more", async || about("mallory").then_some(())).await;
}

#[tokio::test]
async fn those_on_call_are_reminded_of_a_duty_and_a_vital_asset_is_riskier() {
    let outside = Outside::start().await;
    let Some(laboratory) = Laboratory::start_changed("1", |bed| outside.change(bed)).await else { return };
    laboratory.happens("forced", "ann").await;
    let incident = laboratory.incident("ann", 1).await;
    let assets = "[[asset]]\nentity = \"user:ann\"\ncriticality = \"vital\"\n";
    laboratory.soc.put("/v1/escalation/policy", json!({"text": format!("{POLICY}{assets}")})).await.is(200);
    let riskier = laboratory.incident("ann", 1).await;
    // Twice as much, less what fades meanwhile.
    assert!(riskier["risk"].as_u64() > incident["risk"].as_u64().map(|risk| risk * 3 / 2), "{riskier:#}");
    let aware_ms = crate::incidents::now_ms() - 40 * 3_600_000;
    let start = json!({"clock": "gdpr_authority", "subject": "CNIL", "aware_ms": aware_ms});
    laboratory.act(&id_of(&incident), "clocks", start).await;
    let reminded = until("somebody is reminded", async || {
        outside.of("page").into_iter().find(|page| page["clock"] == "gdpr_authority")
    });
    let reminded = reminded.await;
    assert_eq!((reminded["mark"].clone(), reminded["target"].clone()), (json!("half"), json!("schedule:primary")));
}

#[tokio::test]
async fn a_ticket_is_told_outside_once_for_each_revision_and_says_so() {
    let outside = Outside::start().await;
    let Some(laboratory) = Laboratory::start_changed("1", |bed| outside.change(bed)).await else { return };
    laboratory.happens("forced", "ann").await;
    let incident = id_of(&laboratory.incident("ann", 1).await);
    let run = |arguments: &[&str]| {
        let (done, text) = laboratory.command(&[&["tickets"], arguments].concat());
        assert!(done, "{arguments:?}: {text}");
        text
    };
    let opened: Value =
        serde_json::from_str(&run(&["open", &incident[..8], "jira", "--field", "project=SOC", "--json"])).unwrap();
    assert_eq!((opened["title"].clone(), opened["revision"].clone()), (json!("A door was forced"), json!(2)));
    let id = id_of(&opened);
    let again = json!({"incident": incident, "queue": "jira"});
    laboratory.soc.post("/v1/tickets", again).await.problem(409, "conflict");
    run(&[
        "change",
        &id[..8],
        "--state",
        "in_progress",
        "--comment",
        "looking",
        "--link",
        "https://jira.example/SOC-1",
    ]);
    let stale = laboratory.soc.ask(Method::PATCH, &format!("/v1/tickets/{id}")).header("if-match", "\"2\"");
    stale.json(&json!({"state": "done"})).send().await.problem(412, "precondition-failed");
    let known = until("the other side knows", async || {
        let ticket = laboratory.soc.get(&format!("/v1/tickets/{id}")).await.is(200).json();
        (ticket["sync"] == "sent").then_some(ticket)
    });
    let known = known.await;
    assert_eq!((known["revision"].clone(), known["sinks"][0]["sink"].clone()), (json!(5), json!("webhook")));
    let mut revisions: Vec<u64> = outside.of("ticket").iter().filter_map(|body| body["revision"].as_u64()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2, 5], "what was changed at once is told at once");
    assert!(run(&["list", "--state", "in_progress"]).contains("SOC") || run(&["show", &id[..8]]).contains("looking"));
    laboratory.bed.assert_no_panic();
}

#[tokio::test]
async fn a_policy_is_checked_applied_and_asked_from_the_command_line() {
    let Some(laboratory) = Laboratory::start("1").await else { return };
    let file = laboratory.bed.path("policy.toml");
    std::fs::write(&file, POLICY).expect("a policy can be written");
    let broken = laboratory.bed.path("broken.toml");
    std::fs::write(&broken, POLICY.replace("person]]\nlogin = \"bob\"", "person]]\nlogin = \"ann\"")).expect("written");
    let check = crate::bed::holdfast(&["escalation", "check", &broken]);
    assert!(
        !check.status.success() && crate::bed::said(&check).contains("broken.toml:"),
        "{}",
        crate::bed::said(&check)
    );
    assert!(crate::bed::said(&crate::bed::holdfast(&["escalation", "check", &file])).contains("primary: ann"));
    let run = |arguments: &[&str]| laboratory.command(&[&["escalation"], arguments].concat());
    assert!(run(&["apply", &file]).1.contains("revision 1"));
    assert!(run(&["apply", &file, "--why", "again"]).1.contains("revision 2"));
    assert!(!run(&["apply", &file, "--replaces", "1"]).0, "somebody applied another since");
    assert!(run(&["show"]).1.contains("# revision 2"));
    assert!(run(&["who", "2026-03-02T09:00:00Z"]).1.contains("ann"));
    assert!(run(&["runs"]).1.contains("Nobody was ever called"));
}
