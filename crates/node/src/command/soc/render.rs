//! Draws the state. Pure: what is drawn is a function of the state, the time and the size of the terminal.

use super::super::show::{self, plain, short, text, time};
use super::state::{Open, Part, State, Typing};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;

/// The keys, one a line.
const KEYS: [(&str, &str); 14] = [
    ("↑ ↓ j k", "choose, or scroll"),
    ("Enter", "open the incident"),
    ("Esc", "back; in the list, drop the filter"),
    ("Tab", "timeline, entities, facts"),
    ("a", "acknowledge: whoever is called is called no more"),
    ("m", "it is mine"),
    ("s", "give it to somebody"),
    ("c", "comment"),
    ("x", "close: asks for the cause and what was done"),
    ("/", "only incidents with a text"),
    ("o", "open, new, in work, done"),
    ("t", "by priority, severity, risk, newest, updated, due"),
    ("r", "read again now"),
    ("q", "quit"),
];
/// Cells of the longest risk bar.
const BAR_MAX: u64 = 20;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &State, now_ms: u64) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(headline(state, now_ms), head);
    match &state.open {
        _ if state.helps => frame.render_widget(help(), body),
        Some(open) => one(frame, body, state, open, now_ms),
        None => list(frame, body, state, now_ms),
    }
    frame.render_widget(footline(state), foot);
}

fn headline(state: &State, now_ms: u64) -> Paragraph<'_> {
    let count = |is: &dyn Fn(&Value) -> bool| state.list.iter().filter(|one| is(one)).count();
    let critical = count(&|one| one["severity"] == "critical");
    let overdue = count(&|one| one["due_ms"].as_u64().is_some_and(|due_ms| due_ms < now_ms));
    let unseen = count(&|one| one["acknowledged_by"].is_null() && one["status"] == "new");
    let warn = |count: usize, what: &str| {
        let span = Span::raw(format!("  {count} {what}"));
        if count > 0 { span.fg(Color::LightRed).bold() } else { span }
    };
    Paragraph::new(Line::from(vec![
        Span::raw("holdfast soc").bold(),
        Span::raw(format!("  {} incidents: {}", state.total, plain(&state.terms()))),
        warn(critical, "critical"),
        warn(unseen, "not seen"),
        warn(overdue, "overdue"),
        match &state.trouble {
            Some(_) if state.heard_ms > 0 => {
                let age = show::span(now_ms.saturating_sub(state.heard_ms));
                Span::raw(format!("  AS OF {age} AGO")).fg(Color::LightRed).bold()
            }
            _ => Span::raw(""),
        },
    ]))
}

fn footline(state: &State) -> Paragraph<'_> {
    match &state.typing {
        Some((typing, typed)) => {
            let asks = match typing {
                Typing::Filter => "only with",
                Typing::Assignee => "give it to",
                Typing::Comment => "comment",
                Typing::Cause => "close: why did it happen",
                Typing::Actions { .. } => "close: what was done",
            };
            Paragraph::new(Line::from(vec![Span::raw(format!("{asks}> ")).bold(), plain(typed).into(), "▏".into()]))
        }
        None => match &state.trouble {
            Some(trouble) => Paragraph::new(plain(trouble)).fg(Color::LightRed),
            None => Paragraph::new(plain(&state.message)).dim(),
        },
    }
}

fn help() -> Paragraph<'static> {
    let line = |(key, what): (&'static str, &'static str)| {
        Line::from(vec![Span::raw(format!("{key:>9}  ")).bold(), Span::raw(what)])
    };
    Paragraph::new(KEYS.map(line).to_vec()).block(Block::bordered().title(" keys "))
}

fn colour(word: &Value) -> Style {
    match word.as_str().unwrap_or_default() {
        "critical" => Style::new().fg(Color::LightRed).add_modifier(Modifier::BOLD),
        "high" => Style::new().fg(Color::Red),
        "medium" => Style::new().fg(Color::Yellow),
        "low" => Style::new().fg(Color::Cyan),
        _ => Style::new(),
    }
}

/// What is left of a duty: red once less than a sixth of a day is.
fn due(due_ms: &Value, now_ms: u64) -> Span<'static> {
    const SOON_MS: u64 = 4 * 3_600_000;
    let left = Span::raw(show::left(due_ms, now_ms));
    let is_soon = due_ms.as_u64().is_some_and(|due_ms| due_ms < now_ms.saturating_add(SOON_MS));
    if is_soon { left.fg(Color::LightRed).bold() } else { left }
}

fn list(frame: &mut Frame<'_>, area: Rect, state: &State, now_ms: u64) {
    if state.list.is_empty() {
        frame.render_widget(Paragraph::new("No incidents.").block(Block::bordered()), area);
        return;
    }
    let row = |one: &Value| {
        let age = one["opened_ms"].as_u64().map(|at_ms| show::span(now_ms.saturating_sub(at_ms))).unwrap_or_default();
        let quiet = if one["quiet_until_ms"].is_null() { "" } else { "z " };
        Row::new(vec![
            Cell::from(short(&one["id"])),
            Cell::from(Span::styled(text(&one["severity"]), colour(&one["severity"]))),
            Cell::from(Span::styled(text(&one["priority"]), colour(&one["priority"]))),
            Cell::from(text(&one["risk"])),
            Cell::from(text(&one["status"])),
            Cell::from(age),
            Cell::from(due(&one["due_ms"], now_ms)),
            Cell::from(plain(&text(&one["assignee"]))),
            Cell::from(plain(&text(&one["tenant"]))),
            Cell::from(text(&one["alert_count"])),
            Cell::from(format!("{quiet}{}", plain(&text(&one["title"])))),
        ])
    };
    let header =
        ["id", "severity", "priority", "risk", "status", "age", "report", "assignee", "tenant", "alerts", "title"];
    let widths = [8, 13, 8, 5, 11, 8, 16, 10, 10, 6].map(Constraint::Length).into_iter().chain([Constraint::Min(12)]);
    let table = Table::new(state.list.iter().map(row), widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered());
    let mut chosen = TableState::default().with_selected(state.place());
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn one(frame: &mut Frame<'_>, area: Rect, state: &State, open: &Open, now_ms: u64) {
    let incident = &open.incident;
    if incident.is_null() {
        frame.render_widget(Paragraph::new("reading …").block(Block::bordered()), area);
        return;
    }
    let [top, rest] = Layout::vertical([Constraint::Length(5), Constraint::Min(3)]).areas(area);
    let said = |name: &str| plain(&text(&incident[name]));
    let words = |name: &'static str| {
        [Span::raw(format!("{name} ")).dim(), Span::styled(said(name), colour(&incident[name])), Span::raw("  ")]
    };
    let facts = ["status", "severity", "priority", "risk", "assignee", "tenant"].map(words).concat();
    let mut times = vec![Span::raw(format!(
        "opened {}  last event {}  ",
        time(&incident["opened_ms"]),
        time(&incident["last_ms"])
    ))];
    if !incident["due_ms"].is_null() {
        times.extend([Span::raw("to report "), due(&incident["due_ms"], now_ms), Span::raw("  ")]);
    }
    if let Some(until_ms) = incident["quiet_until_ms"].as_u64() {
        times.push(Span::raw(format!("nobody is called until {}", time(&until_ms.into()))).fg(Color::Yellow));
    }
    let title = format!(" {} {} ", short(&incident["id"]), said("title"));
    let lines = vec![Line::from(facts), Line::from(times), acknowledged(incident)];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), top);
    let (name, lines) = match state.part {
        Part::Timeline => (" timeline │ entities │ facts ", timeline(open)),
        Part::Entities => (" entities │ facts │ timeline ", entities(incident)),
        Part::Facts => (" facts │ timeline │ entities ", self::facts(incident, now_ms)),
    };
    let body = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((state.scroll, 0));
    frame.render_widget(body.block(Block::bordered().title(name)), rest);
}

fn acknowledged(incident: &Value) -> Line<'static> {
    match incident["acknowledged_by"].as_str() {
        Some(login) => Line::from(format!("seen by {}", plain(login))),
        None => Line::from("nobody has seen it").fg(Color::LightRed),
    }
}

fn timeline(open: &Open) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for one in open.timeline["moments"].as_array().into_iter().flatten() {
        let at = Span::raw(format!("{}  ", time(&one["time_ms"]))).dim();
        let said = |name: &str| plain(&text(&one[name]));
        lines.push(match one["kind"].as_str().unwrap_or_default() {
            "event" => Line::from(vec![at, Span::raw("event  ").dim(), said("text").into()]),
            "alert" => Line::from(vec![
                at,
                Span::styled("alert  ", colour(&one["severity"])),
                format!("{} [{}]", said("title"), said("severity")).into(),
            ]),
            _ => {
                let note = &one["note"];
                let part = |name: &str| plain(&text(&note[name]));
                let void = if note["void"].is_null() { String::new() } else { format!(" [void: {}]", part("void")) };
                let said = format!("{} {} {}{void}", part("actor"), part("act"), part("text"));
                Line::from(vec![at, Span::raw("act    ").fg(Color::Green), said.into()])
            }
        });
    }
    if let Some(count) = open.timeline["left_out"].as_u64().filter(|count| *count > 0) {
        lines.push(Line::from(format!("and {count} more events")));
    }
    lines
}

/// Each entity with its risk, and under it those that the same alerts concern.
fn entities(incident: &Value) -> Vec<Line<'static>> {
    let list = |name: &str| incident["graph"][name].as_array().cloned().unwrap_or_default();
    let (entities, edges) = (list("entities"), list("edges"));
    let most = entities.iter().filter_map(|one| one["risk"].as_u64()).max().unwrap_or(0).max(1);
    let mut lines = Vec::new();
    for one in &entities {
        let name = format!("{}:{}", text(&one["kind"]), text(&one["name"]));
        let risk = one["risk"].as_u64().unwrap_or_default();
        let bar = "█".repeat(usize::try_from(risk * BAR_MAX / most).unwrap_or_default());
        lines.push(Line::from(vec![
            Span::raw(plain(&name)).bold(),
            format!("  {} alerts  risk {risk} ", text(&one["alerts"])).into(),
            Span::raw(bar).fg(Color::Yellow),
        ]));
        for edge in &edges {
            let other = match (edge["one"].as_str(), edge["other"].as_str()) {
                (Some(first), Some(other)) if first == name => other,
                (Some(other), Some(second)) if second == name => other,
                _ => continue,
            };
            lines.push(Line::from(format!("  ├─ {} ×{}", plain(other), text(&edge["alerts"]))).dim());
        }
    }
    lines
}

fn facts(incident: &Value, now_ms: u64) -> Vec<Line<'static>> {
    let join = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let title = |name: &'static str| Line::from(name).bold();
    let attack = &incident["attack"];
    let mut lines = vec![
        title("ATT&CK"),
        Line::from(format!("  version {}  {}", text(&attack["version"]), plain(&join(&attack["tactics"])))),
        Line::from(format!("  {}", plain(&join(&attack["techniques"])))),
        title("Risk"),
    ];
    let risk = &incident["risk_parts"];
    for (rule, points) in risk["rules"].as_object().into_iter().flatten() {
        let points = points.as_f64().unwrap_or_default() / 1_000.0;
        lines.push(Line::from(format!("  {points:>7.1}  {}", plain(rule))));
    }
    let factors =
        format!("  level {}, assets {}, {}", text(&risk["level"]), text(&risk["criticality"]), join(&risk["tactics"]));
    lines.push(Line::from(plain(&factors)));
    let clocks = incident["clocks"].as_array().cloned().unwrap_or_default();
    if !clocks.is_empty() {
        lines.push(title("To report"));
    }
    for clock in &clocks {
        let said =
            format!("  {} to or about {}: {}  ", text(&clock["clock"]), text(&clock["subject"]), text(&clock["state"]));
        let is_open = matches!(clock["state"].as_str(), Some("running" | "overdue"));
        let left = if is_open { due(&clock["due_ms"], now_ms) } else { Span::raw(plain(&text(&clock["reference"]))) };
        lines.push(Line::from(vec![plain(&said).into(), left]));
    }
    lines.push(title("Alerts"));
    for alert in incident["alerts"].as_array().into_iter().flatten() {
        let said = format!("{} [{}]", text(&alert["title"]), text(&alert["severity"]));
        lines.push(Line::from(format!("  {}  {}", time(&alert["time_ms"]), plain(&said))));
    }
    if let Some(post_mortem) = incident["post_mortem"].as_str() {
        lines.push(title("Post-mortem"));
        lines.extend(post_mortem.lines().map(|line| Line::from(format!("  {}", plain(line)))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    const NOW_MS: u64 = 1_795_467_600_000;

    fn drawn(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state, NOW_MS)).unwrap();
        terminal.backend().to_string()
    }

    fn state() -> State {
        let mut state = State::new("ann".into());
        let one = |id: &str, severity: &str, title: &str| {
            json!({
                "id": id, "severity": severity, "priority": "high", "risk": 120, "status": "new", "tenant": "acme",
                "title": title, "alert_count": 3, "opened_ms": NOW_MS - 65_000, "assignee": null,
                "due_ms": NOW_MS + 3_600_000, "acknowledged_by": null, "quiet_until_ms": null,
            })
        };
        let list = [one("aaaaaaaa11", "critical", "Door\u{1b}[2J forced"), one("bbbbbbbb22", "low", "Log wiped")];
        state.listed(&json!({"total": 2, "incidents": list}));
        state
    }

    #[test]
    fn the_list_shows_what_is_grave_how_old_it_is_and_what_must_be_reported() {
        let screen = drawn(&state(), 140, 8);
        for expect in ["2 incidents: open, by priority", "1 critical", "2 not seen", "aaaaaaaa", "1m 5s", "in 1h 0m"] {
            assert!(screen.contains(expect), "{expect}\n{screen}");
        }
        assert!(screen.contains("Door [2J forced"), "nothing steers the terminal\n{screen}");
    }

    #[test]
    fn one_incident_shows_its_timeline_its_entities_and_its_facts() {
        let mut state = state();
        let incident = json!({
            "id": "aaaaaaaa11", "title": "Door forced", "status": "new", "severity": "critical", "risk": 120,
            "graph": {
                "entities": [{"kind": "user", "name": "ann", "alerts": 2, "risk": 90},
                    {"kind": "address", "name": "10.0.0.1", "alerts": 1, "risk": 45}],
                "edges": [{"one": "user:ann", "other": "address:10.0.0.1", "alerts": 1}],
            },
            "attack": {"version": 19, "tactics": ["initial-access"], "techniques": ["T1110"]},
            "risk_parts": {"level": "high", "criticality": "normal", "tactics": [], "rules": {"r1": 30_000}},
            "clocks": [{"clock": "gdpr_authority", "subject": "CNIL", "state": "overdue", "due_ms": NOW_MS - 5_000}],
            "alerts": [{"title": "Door forced", "severity": "high", "time_ms": NOW_MS}],
        });
        let timeline = json!({"left_out": 2, "moments": [
            {"kind": "event", "time_ms": NOW_MS, "text": "crowbar"},
            {"kind": "alert", "time_ms": NOW_MS, "title": "Door forced", "severity": "high"},
            {"kind": "act", "time_ms": NOW_MS, "note": {"actor": "ann", "act": "commented", "text": "seen"}},
        ]});
        state.open = Some(Open { id: "aaaaaaaa11".into(), incident, timeline });
        let parts = [
            (Part::Timeline, ["crowbar", "Door forced [high]", "ann commented seen", "and 2 more events"]),
            (Part::Entities, ["user:ann", "risk 90 ████", "├─ address:10.0.0.1 ×1", "├─ user:ann ×1"]),
            (Part::Facts, ["T1110", "30.0  r1", "CNIL: overdue", "OVERDUE 5s"]),
        ];
        for (part, expected) in parts {
            state.part = part;
            let screen = drawn(&state, 120, 24);
            for expect in expected {
                assert!(screen.contains(expect), "{expect}\n{screen}");
            }
        }
    }

    #[test]
    fn any_size_is_drawn_without_panic() {
        let mut state = state();
        for open in [None, Some(Open::default())] {
            state.open = open;
            for (width, height) in [(1, 1), (3, 5), (40, 4), (300, 80)] {
                drawn(&state, width, height);
            }
        }
        state.open = None;
        state.helps = true;
        assert!(drawn(&state, 80, 20).contains("acknowledge"));
    }
}
