//! `holdfast init`: a new cluster's description, authority, certificates, keys and first administrator.

use crate::world::{SystemClock, SystemEntropy};
use anyhow::{Context, bail};
use clap::Args;
use identity::password::{self, Cost, PasswordHash};
use identity::token::KeyId;
use identity::totp::TotpSecret;
use identity::{Account, Grant, Login, Role, SessionKey};
use keyring::{Secret, SigningKey};
use model::cluster::{Cluster, Environment, Node, Region};
use model::entropy::Entropy;
use model::time::Clock;
use model::{NodeId, RegionId, TenantId, UserId};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use transport::{Authority, Identity};

/// What `holdfast init` is told.
#[derive(Args)]
pub struct Init {
    /// Where to write; must not exist yet, or be empty.
    folder: PathBuf,
    /// The cluster's name: part of every certificate.
    #[arg(long, default_value = "demo")]
    name: String,
    /// Regions, in order.
    #[arg(long, value_delimiter = ',', default_value = "eu,us,ap")]
    regions: Vec<String>,
    /// Nodes of each region; an odd number survives the loss of less than half.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// The first of the ports on 127.0.0.1, three for each node; 0 picks free ones.
    #[arg(long, default_value_t = 7400)]
    base_port: u16,
    /// Raft groups of each region.
    #[arg(long, default_value_t = 2)]
    groups: u16,
    /// Shards of each region's detection; its nodes share them out.
    #[arg(long, default_value_t = 2)]
    detection_shards: u16,
    /// Partitions of the tenants' data; never changes.
    #[arg(long, default_value_t = 64)]
    partitions: u16,
    /// development, qa, staging or production; drills refuse production.
    #[arg(long, default_value = "development")]
    environment: String,
    /// The first administrator's login.
    #[arg(long, default_value = "ada")]
    admin: String,
    /// A folder of Sigma rules for the nodes' configuration.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

/// The first administrator and session key: needed once, secret for ever.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bootstrap {
    login: String,
    password: String,
    totp: String,
    totp_bytes: String,
    session_key: String,
}

/// Writes a new cluster.
pub fn run(init: &Init) -> anyhow::Result<()> {
    if init.folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{}: the folder is not empty; a cluster is made in a new one", init.folder.display());
    }
    let (clock, entropy) = (SystemClock::new(), SystemEntropy);
    let cluster = describe(init)?;
    let authority = Authority::create(&cluster.name, clock.wall_ms(), &entropy)?;
    let folder = &init.folder;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    write(&folder.join("cluster.toml"), &cluster.to_toml())?;
    write(&folder.join("ca.pem"), authority.certificate_pem())?;
    write_secret(&folder.join("ca.key"), &authority.key_pem())?;
    for region in &cluster.regions {
        let audit_key = SigningKey::generate(&entropy);
        for node in &region.nodes {
            write_node(init, &cluster, &authority, node, &audit_key, clock.wall_ms())?;
        }
    }
    let bootstrap = bootstrap(&init.admin, &entropy)?;
    write_secret(&folder.join("bootstrap.toml"), &toml::to_string(&bootstrap)?)?;
    report(init, &cluster, &bootstrap);
    Ok(())
}

fn describe(init: &Init) -> anyhow::Result<Cluster> {
    let environment = match init.environment.as_str() {
        "development" => Environment::Development,
        "qa" => Environment::Qa,
        "staging" => Environment::Staging,
        "production" => Environment::Production,
        other => bail!("--environment {other}: development, qa, staging or production"),
    };
    let count = init.regions.len() * usize::from(init.nodes);
    let mut ports = ports(init.base_port, count * 3)?.into_iter();
    let mut next = || SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports.next().unwrap_or(0));
    let mut id = 0;
    let mut regions = Vec::new();
    for (index, name) in (1u16..).zip(&init.regions) {
        let mut nodes = Vec::new();
        for number in 1..=init.nodes {
            id += 1;
            let (link, api, metrics) = (next(), next(), next());
            let zone = "protected".to_owned();
            nodes.push(Node { id: NodeId::new(id), name: format!("{name}-{number}"), zone, link, api, metrics });
        }
        regions.push(Region { id: RegionId::new(index), name: name.clone(), incarnation: 0, nodes });
    }
    let cluster = Cluster {
        name: init.name.clone(),
        environment,
        partitions: init.partitions,
        groups: init.groups,
        detection_shards: init.detection_shards,
        regions,
        links: Vec::new(),
    };
    cluster.check()?;
    Ok(cluster)
}

/// Where free ports are looked for: below those that the kernel gives to clients, so that a node which is started again
/// finds its own still free.
const FREE_PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Consecutive ports, or free ones: each is held until all are chosen, so that none is chosen twice.
fn ports(base: u16, count: usize) -> anyhow::Result<Vec<u16>> {
    if base != 0 {
        let end = usize::from(base) + count;
        if end > usize::from(u16::MAX) {
            bail!("--base-port {base}: {count} ports are needed from there on");
        }
        return Ok((base..).take(count).collect());
    }
    let mut drawn = [0; 2];
    SystemEntropy.fill(&mut drawn);
    let many = FREE_PORTS.end - FREE_PORTS.start;
    let begin = u16::from_be_bytes(drawn) % many;
    let candidates = (0..many).map(|step| FREE_PORTS.start + (begin + step) % many);
    // The same number must be free for UDP: it may become a link's.
    let hold = |port| Some((TcpListener::bind(("127.0.0.1", port)).ok()?, UdpSocket::bind(("127.0.0.1", port)).ok()?));
    let held: Vec<(u16, (TcpListener, UdpSocket))> =
        candidates.filter_map(|port| Some((port, hold(port)?))).take(count).collect();
    if held.len() < count {
        bail!("{count} free ports are needed between {} and {}", FREE_PORTS.start, FREE_PORTS.end);
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

fn write_node(
    init: &Init,
    cluster: &Cluster,
    authority: &Authority,
    node: &Node,
    audit_key: &SigningKey,
    now_ms: u64,
) -> anyhow::Result<()> {
    let folder = init.folder.join("nodes").join(&node.name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let identity = Identity::described(cluster, node.id).context("the node was just described")?;
    let link = authority.issue_node(&identity, now_ms, &SystemEntropy)?;
    let api = authority.issue_api_server(&[], &[node.api.ip()], now_ms, &SystemEntropy)?;
    write(&folder.join("node.pem"), &link.certificate_pem)?;
    write_secret(&folder.join("node.key"), &link.key_pem)?;
    write(&folder.join("api.pem"), &api.certificate_pem)?;
    write_secret(&folder.join("api.key"), &api.key_pem)?;
    write_secret(&folder.join("audit.key"), &audit_key.to_base64())?;
    let rules = match &init.rules {
        Some(rules) => {
            let absolute = rules.canonicalize().with_context(|| rules.display().to_string())?;
            format!("\n[detection]\nrules = {:?}\n", absolute.display().to_string())
        }
        None => String::new(),
    };
    let text = format!(
        "# Made by `holdfast init`. Check it with `holdfast check-config`.\n\
         node = \"{}\"\ncluster = \"../../cluster.toml\"\ndata = \"data\"\n\n\
         [tls]\nauthority = \"../../ca.pem\"\ncertificate = \"node.pem\"\nkey = \"node.key\"\n\
         api_certificate = \"api.pem\"\napi_key = \"api.key\"\n\n\
         [keys]\naudit = \"audit.key\"\n{rules}",
        node.name
    );
    write(&folder.join("node.toml"), &text)
}

fn bootstrap(login: &str, entropy: &dyn Entropy) -> anyhow::Result<Bootstrap> {
    Login::parse(login)?;
    let secret = TotpSecret::generate(entropy);
    let bytes = model::codec::encode(&secret);
    Ok(Bootstrap {
        login: login.to_owned(),
        password: draw_password(login, entropy),
        totp: secret.base32(),
        totp_bytes: hex::encode(bytes),
        session_key: Secret::generate(entropy).to_base64().to_string(),
    })
}

/// A password the policy accepts: 24 characters of four classes.
fn draw_password(login: &str, entropy: &dyn Entropy) -> String {
    const CHARACTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789-_+=!%";
    loop {
        let mut bytes = [0; 24];
        entropy.fill(&mut bytes);
        let drawn: String =
            bytes.iter().map(|byte| char::from(CHARACTERS[usize::from(*byte) % CHARACTERS.len()])).collect();
        if password::check_policy(&drawn, login).is_ok() {
            return drawn;
        }
    }
}

/// Reads what [`run`] wrote: the first session key and administrator.
pub fn read_bootstrap(path: &Path) -> anyhow::Result<(SessionKey, Account)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let bootstrap: Bootstrap = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let secret =
        Secret::from_base64(&bootstrap.session_key).with_context(|| format!("{}: session_key", path.display()))?;
    let totp: TotpSecret = hex::decode(&bootstrap.totp_bytes)
        .ok()
        .and_then(|bytes| model::codec::decode(&bytes).ok())
        .with_context(|| format!("{}: totp_bytes", path.display()))?;
    let account = Account {
        id: UserId::new(0),
        login: Login::parse(&bootstrap.login)?,
        person: bootstrap.login.clone(),
        tenant: TenantId::PLATFORM,
        grants: [Role::PlatformAdmin, Role::Soc, Role::Auditor].map(Grant::whole).to_vec(),
        password: PasswordHash::new(&bootstrap.password, Cost::Standard, &SystemEntropy),
        totp: Some(totp),
        totp_last: None,
        must_change: false,
        disabled: false,
        epoch: 1,
    };
    Ok((SessionKey { id: KeyId::FIRST, secret }, account))
}

fn report(init: &Init, cluster: &Cluster, bootstrap: &Bootstrap) {
    let folder = init.folder.display();
    if init.json {
        let nodes: Vec<_> = cluster
            .nodes()
            .map(|(region, node)| serde_json::json!({"region": region.name, "node": node.name, "api": node.api, "metrics": node.metrics, "link": node.link}))
            .collect();
        let made = serde_json::json!({
            "folder": init.folder, "cluster": cluster.name, "login": bootstrap.login, "password": bootstrap.password,
            "totp": bootstrap.totp, "nodes": nodes,
        });
        println!("{made:#}");
        return;
    }
    println!("Cluster '{}' is described in {folder}/cluster.toml.", cluster.name);
    println!(
        "Administrator: {}  password: {}  one-time codes: {}",
        bootstrap.login, bootstrap.password, bootstrap.totp
    );
    println!(
        "These are also in {folder}/bootstrap.toml; delete it once the cluster is set up.\n\nStart each node the first time with:"
    );
    for (_, node) in cluster.nodes() {
        println!(
            "  holdfast start --config {folder}/nodes/{}/node.toml --first --bootstrap {folder}/bootstrap.toml",
            node.name
        );
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}
