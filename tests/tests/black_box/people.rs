//! People of a cluster: the first administrator, and for each tenant one who runs it and one who works in it.

use crate::bed::{Bed, until};
use crate::client::Client;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use totp_rs::{Algorithm, Builder, Secret, Totp};

const STEP_SECONDS: u64 = 30;
/// The password an administrator chooses for others, and the one they choose themselves.
pub const GIVEN: &str = "Correct-Horse-7-Battery";
pub const CHOSEN: &str = "Better-Zebra-9-Stapler";

/// Shows one-time codes, each once: the codes of the last, this and the next half minute are accepted.
pub struct Codes {
    totp: Totp,
    used: u64,
}

impl Codes {
    pub fn new(secret: &str) -> Self {
        let secret = Secret::try_from_base32(secret).expect("the secret is base32");
        let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1);
        let builder = builder.with_step_duration(STEP_SECONDS).with_secret(secret).with_account_name("test");
        Self { totp: builder.build().expect("the secret is long enough"), used: 0 }
    }

    /// Of the `otpauth://` address of an enrolment.
    pub fn enrolled(created: &Value) -> Self {
        let uri = created["totp_uri"].as_str().expect("there is an enrolment");
        Self::new(uri.split(['?', '&']).find_map(|part| part.strip_prefix("secret=")).expect("it has a secret"))
    }

    /// A code that was not shown before.
    pub async fn next(&mut self) -> String {
        let step = until("a new code", async || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
            let (now, left) = (now / STEP_SECONDS, STEP_SECONDS - now % STEP_SECONDS);
            // A step that is about to end is passed over: its code might arrive too late.
            let oldest = if left > 5 { now.saturating_sub(1) } else { now };
            let step = (self.used + 1).max(oldest);
            (step <= now + 1).then_some(step)
        });
        self.used = step.await;
        self.totp.generate(self.used * STEP_SECONDS).to_string()
    }
}

/// Logs in.
pub async fn login(client: &Client, login: &str, password: &str, code: Option<String>) -> Client {
    let answer = client.post("/v1/sessions", json!({"login": login, "password": password, "totp": code})).await.is(201);
    client.with(answer.json()["token"].as_str().expect("a login gives a token"))
}

/// The first administrator, logged in at this client's node.
pub async fn first(bed: &Bed, client: &Client) -> Client {
    let code = Codes::new(&bed.first.totp).next().await;
    login(client, &bed.first.login, &bed.first.password, Some(code)).await
}

/// Somebody new, who has chosen a password of their own and is logged in.
pub async fn person(admin: &Client, name: &str, tenant: &str, grants: Value) -> Client {
    let new = json!({"login": name, "person": name, "tenant": tenant, "password": GIVEN, "grants": grants});
    let created = admin.post("/v1/users", new).await.is(201).json();
    let mut codes = created["totp_uri"].is_string().then(|| Codes::enrolled(&created));
    let anyone = admin.without();
    let given = login(&anyone, name, GIVEN, next(&mut codes).await).await;
    let change = json!({"current": GIVEN, "new": CHOSEN, "totp": next(&mut codes).await});
    given.put("/v1/me/password", change).await.is(204);
    login(&anyone, name, CHOSEN, next(&mut codes).await).await
}

async fn next(codes: &mut Option<Codes>) -> Option<String> {
    match codes {
        Some(codes) => Some(codes.next().await),
        None => None,
    }
}

/// A tenant with a table `contacts`, its administrator and somebody who works with its data.
pub struct Tenant {
    pub admin: Client,
    pub agent: Client,
}

impl Tenant {
    /// `admin` runs the platform; names of people begin with the tenant's.
    pub async fn create(admin: &Client, name: &str) -> Self {
        admin.post("/v1/tenants", json!({"name": name})).await.is(201);
        let runs = person(admin, &format!("{name}-tina"), name, json!([{"role": "tenant-admin"}])).await;
        let fields = json!([
            {"name": "name", "kind": "text"},
            {"name": "city", "kind": "text"},
            {"name": "visits", "kind": "int", "merge": "counter"},
        ]);
        let table = json!({"name": "contacts", "fields": fields});
        runs.post(&format!("/v1/tenants/{name}/tables"), table).await.is(201);
        let works = person(&runs, &format!("{name}-ann"), name, json!([{"role": "agent"}])).await;
        Self { admin: runs, agent: works }
    }
}

/// The path of a record of a tenant's `contacts`.
pub fn record(tenant: &str, key: &str) -> String {
    format!("/v1/tenants/{tenant}/tables/contacts/records/{key}")
}
