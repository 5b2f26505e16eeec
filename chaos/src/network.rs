//! Cutting links between regions on one machine: packets are dropped on arrival, by the UDP ports of both ends.
//!
//! On arrival, because a drop on departure is an error for the sender, which no network gives. The rules are in a
//! table of their own that counts what it drops and is removed when the [`Cut`] is dropped.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Links that are cut.
#[derive(Debug)]
pub struct Cut {
    table: String,
}

/// Whether this machine can cut links; the reason if not.
pub fn can_cut() -> Result<(), String> {
    match Command::new("nft").args(["list", "tables"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("nft cannot be run ({error}): install the package nftables")),
    }
}

impl Cut {
    /// Drops what goes from the ports of the first side to those of the second; `both` also the other way.
    pub fn between(from: &[u16], to: &[u16], both: bool) -> Result<Self> {
        let table = format!("holdfast_drill_{}", std::process::id());
        let cut = Self { table };
        cut.run(&rules(&cut.table, from, to, both))?;
        Ok(cut)
    }

    /// Packets dropped so far in each direction that is cut.
    pub fn dropped(&self) -> Result<Vec<u64>> {
        let output = Command::new("nft").args(["-j", "list", "table", "inet", &self.table]).output()?;
        let listed: Value = serde_json::from_slice(&output.stdout).context("nft gave no JSON")?;
        Ok(counters(&listed))
    }

    fn run(&self, rules: &str) -> Result<()> {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("nft cannot be run")?;
        child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.table]).stderr(Stdio::null()).status();
    }
}

fn rules(table: &str, from: &[u16], to: &[u16], both: bool) -> String {
    let set = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let rule = |from: &[u16], to: &[u16]| {
        format!("    iif lo udp sport {{ {} }} udp dport {{ {} }} counter drop\n", set(from), set(to))
    };
    let back = if both { rule(to, from) } else { String::new() };
    let chain = "  chain arrival {\n    type filter hook input priority 0; policy accept;\n";
    format!("table inet {table} {{\n{chain}{}{back}  }}\n}}\n", rule(from, to))
}

fn counters(listed: &Value) -> Vec<u64> {
    let objects = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rules = objects.iter().filter_map(|object| object["rule"]["expr"].as_array());
    rules.filter_map(|rule| rule.iter().find_map(|part| part["counter"]["packets"].as_u64())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn one_way_has_one_rule_and_both_ways_two() {
        let one = rules("t", &[1, 2], &[3], false);
        assert!(one.contains("udp sport { 1, 2 } udp dport { 3 } counter drop"));
        assert_eq!(one.matches("counter drop").count(), 1);
        assert_eq!(rules("t", &[1, 2], &[3], true).matches("counter drop").count(), 2);
    }

    /// On machines that can: a packet does not arrive, the one back does, and afterwards both do.
    #[test]
    fn a_one_way_cut_drops_one_way_and_is_removed() {
        if can_cut().is_err() {
            return;
        }
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (one, other) = (socket(), socket());
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let arrives = |from: &UdpSocket, to: &UdpSocket| {
            to.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            from.send_to(b"x", to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0; 8]).is_ok()
        };
        let cut = Cut::between(&[port(&one)], &[port(&other)], false).unwrap();
        assert!(!arrives(&one, &other) && arrives(&other, &one));
        assert_eq!(cut.dropped().unwrap(), [1]);
        drop(cut);
        assert!(arrives(&one, &other));
    }
}
