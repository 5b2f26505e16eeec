//! What a run works with: a tenant, its table, and the persons whose sessions are used.

use crate::access::{Authenticator, Pass, change_password, login};
use crate::client::{Answer, Call, Client, Door, doors};
use crate::cluster::{Lab, POLL};
use anyhow::{Context as _, Result, bail};
use model::TenantId;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the control plane's state may take to reach every node.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(20);

/// A person to be given an account.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// The login.
    pub login: &'static str,
    /// The name.
    pub name: &'static str,
    /// The role.
    pub role: &'static str,
    /// The password that the administrator chooses.
    pub first_password: &'static str,
    /// The password that the person chooses.
    pub password: &'static str,
}

/// Runs the tenant: its tables and accounts.
pub const MANAGER: Person = Person {
    login: "tessa",
    name: "Tessa Tenant",
    role: "tenant-admin",
    first_password: "First-Key-4711-Garden",
    password: "Juniper+77+Lantern",
};
/// Works with its records.
pub const AGENT: Person = Person {
    login: "olga",
    name: "Olga Operator",
    role: "agent",
    first_password: "First-Key-4712-Meadow",
    password: "Kestrel-42-Harbour",
};

/// An account that was created and used for the first time.
#[derive(Debug)]
pub struct Enrolled {
    /// The session.
    pub pass: Pass,
    /// The server's numbers of the logins on the way.
    pub logins: Vec<String>,
    /// The server's numbers of the changes on the way: the account, its password.
    pub changes: Vec<String>,
}

/// Everything a run needs to reach the cluster.
pub struct Site {
    /// The client at 127.0.0.1.
    pub client: Client,
    /// Every node's door.
    pub doors: Vec<Door>,
    /// Names of the regions.
    pub regions: Vec<String>,
    /// The platform administrator's session.
    pub admin: Pass,
}

impl Site {
    /// Logs the first administrator in.
    pub async fn enter(lab: &Lab) -> Result<Self> {
        let client = Client::new(&lab.authority()?, None)?;
        let doors = doors(lab);
        let bootstrap = lab.bootstrap()?;
        let mut device = Authenticator::new(&bootstrap.totp)?;
        let door = doors.first().context("the cluster has no nodes")?;
        let admin = login(&client, door, &bootstrap.login, &bootstrap.password, Some(&mut device)).await?;
        let regions = lab.description().regions.iter().map(|region| region.name.clone()).collect();
        Ok(Self { client, doors, regions, admin })
    }

    /// The door where administration happens.
    pub fn front(&self) -> &Door {
        &self.doors[0]
    }

    /// The first door of a region.
    pub fn door(&self, region: usize) -> &Door {
        self.doors.iter().find(|door| door.region == region).unwrap_or(&self.doors[0])
    }

    /// Creates an account, logs in, changes the password, logs in again.
    pub async fn enrol(&self, by: &Pass, person: Person, tenant: &str) -> Result<Enrolled> {
        let door = self.front();
        let body = json!({
            "login": person.login, "person": person.name, "tenant": tenant, "password": person.first_password,
            "grants": [{"role": person.role}],
        });
        let created = self.client.must(door, &Call::new(Method::POST, "/v1/users", &by.token).json(&body)).await?;
        let mut device = created.body["totp_uri"].as_str().map(Authenticator::from_uri).transpose()?;
        self.known(by, person.login).await?;
        let first = login(&self.client, door, person.login, person.first_password, device.as_mut()).await?;
        let passwords = (person.first_password, person.password);
        let changed = change_password(&self.client, door, &first, passwords, device.as_mut()).await?;
        let pass = login(&self.client, door, person.login, person.password, device.as_mut()).await?;
        Ok(Enrolled {
            logins: vec![first.request, pass.request.clone()],
            changes: vec![created.request, changed.request],
            pass,
        })
    }

    /// Waits until the front door knows an account: a login before would count as a failed one.
    async fn known(&self, by: &Pass, login: &str) -> Result<()> {
        let deadline = Instant::now() + EVERYWHERE_WITHIN;
        loop {
            let answer = self.client.must(self.front(), &Call::new(Method::GET, "/v1/users", &by.token)).await?;
            let users = answer.body["users"].as_array().cloned().unwrap_or_default();
            if users.iter().any(|user| user["login"] == login) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the account '{login}' is not known at {} after {EVERYWHERE_WITHIN:?}", self.front().node);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Creates a tenant that may be in all regions.
    pub async fn create_tenant(&self, name: &str, class: u8) -> Result<(TenantId, Answer)> {
        let body = json!({"name": name, "continuity_class": class});
        let call = Call::new(Method::POST, "/v1/tenants", &self.admin.token).json(&body);
        let answer = self.client.must(self.front(), &call).await?;
        let id = answer.body["id"].as_u64().context("a tenant without an id")?;
        Ok((TenantId::new(id), answer))
    }

    /// Creates a table, as the tenant's own administrator.
    pub async fn create_table(&self, by: &Pass, tenant: &str, table: &str, fields: &Value) -> Result<Answer> {
        let body = json!({"name": table, "fields": fields});
        let call = Call::new(Method::POST, format!("/v1/tenants/{tenant}/tables"), &by.token).json(&body);
        self.client.must(self.front(), &call).await
    }

    /// Waits until a session can use a table at every node.
    pub async fn everywhere(&self, pass: &Pass, tenant: &str, table: &str) -> Result<Duration> {
        let began = Instant::now();
        for door in &self.doors {
            loop {
                let call = Call::new(Method::GET, format!("/v1/tenants/{tenant}/tables/{table}"), &pass.token);
                let problem = match self.client.send(door, &call).await {
                    Ok(answer) if answer.is_success() => break,
                    Ok(answer) => answer.problem(),
                    Err(error) => error.to_string(),
                };
                if began.elapsed() >= EVERYWHERE_WITHIN {
                    bail!("{} does not know table {table} after {EVERYWHERE_WITHIN:?}: {problem}", door.node);
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(began.elapsed())
    }
}
