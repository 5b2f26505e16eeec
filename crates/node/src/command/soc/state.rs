//! What the terminal shows, and what a key makes of it. Pure: it asks nothing and draws nothing.

use super::super::show::{query, text};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

/// Incidents that are shown.
pub const SHOWN_MAX: usize = 200;
/// Characters of what people type.
const TYPED_MAX: usize = 2_000;
/// Which incidents: the choices of the key `o`.
const STATUSES: [&str; 4] = ["open", "new", "in_progress,on_hold", "resolved,closed"];
/// What comes first: the choices of the key `t`.
const SORTS: [&str; 6] = ["priority", "severity", "risk", "newest", "updated", "due"];

/// Parts of one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Events, alerts and acts.
    Timeline,
    /// Whom it concerns, and what joins them.
    Entities,
    /// Alerts, ATT&CK, duties to report, the post-mortem.
    Facts,
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typing {
    /// What incidents are looked for by.
    Filter,
    /// To whom it is given.
    Assignee,
    /// A remark.
    Comment,
    /// Why it happened.
    Cause,
    /// What was done; the cause was typed before.
    Actions {
        /// Why it happened.
        cause: String,
    },
}

/// One incident, as it was last read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    /// Which.
    pub id: String,
    /// As the API shows it; null until it was read.
    pub incident: Value,
    /// Its moments; null until they were read.
    pub timeline: Value,
}

/// What the terminal shows.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Who looks, for giving incidents to oneself.
    pub login: String,
    /// The incidents, as the API lists them.
    pub list: Vec<Value>,
    /// How many there are in all.
    pub total: u64,
    /// Which is chosen: stays with its incident when the list moves, and is none once that is not in it any more.
    pub chosen: Option<String>,
    /// Whether this list was read before: only its first reading chooses for people.
    is_known: bool,
    /// What is typed is for this incident, as it was when typing began: its id and entity tag.
    subject: Option<(String, Option<String>)>,
    /// Which incidents: a place in the choices.
    status: usize,
    /// What comes first: a place in the choices.
    sort: usize,
    /// What is looked for.
    pub filter: String,
    /// The one that is open.
    pub open: Option<Open>,
    /// Which part of it.
    pub part: Part,
    /// How far it is scrolled.
    pub scroll: u16,
    /// What is being typed, and what was typed so far.
    pub typing: Option<(Typing, String)>,
    /// What came of the last act.
    pub message: String,
    /// When something was heard last, and why nothing is heard now.
    pub heard_ms: u64,
    /// See `heard_ms`.
    pub trouble: Option<String>,
    /// Whether the keys are explained.
    pub helps: bool,
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Nothing beyond another view.
    Nothing,
    /// The end.
    Quit,
    /// Read again now.
    Read,
    /// Do something to an incident.
    Act {
        /// Which.
        id: String,
        /// The act's part of the address.
        act: &'static str,
        /// What comes with it.
        body: Value,
        /// Only while it is as it was seen: its entity tag.
        seen: Option<String>,
    },
}

impl State {
    /// Nothing read yet.
    pub fn new(login: String) -> Self {
        Self {
            login,
            list: Vec::new(),
            total: 0,
            chosen: None,
            is_known: false,
            subject: None,
            status: 0,
            sort: 0,
            filter: String::new(),
            open: None,
            part: Part::Timeline,
            scroll: 0,
            typing: None,
            message: "? explains the keys".into(),
            heard_ms: 0,
            trouble: None,
            helps: false,
        }
    }

    /// The address of the list.
    pub fn list_path(&self) -> String {
        let mut path =
            format!("/v1/incidents?limit={SHOWN_MAX}&status={}&sort={}", STATUSES[self.status], SORTS[self.sort]);
        if !self.filter.is_empty() {
            path.push_str(&format!("&text={}", query(&self.filter)));
        }
        path
    }

    /// Which incidents, in which order, in words.
    pub fn terms(&self) -> String {
        let filter = if self.filter.is_empty() { String::new() } else { format!(", with '{}'", self.filter) };
        format!("{}, by {}{filter}", STATUSES[self.status], SORTS[self.sort])
    }

    /// The list was read.
    pub fn listed(&mut self, found: &Value) {
        self.list = found["incidents"].as_array().cloned().unwrap_or_default();
        self.total = found["total"].as_u64().unwrap_or_default();
        if !std::mem::replace(&mut self.is_known, true) {
            self.chosen = self.list.first().map(|one| text(&one["id"]));
        } else if self.chosen.is_some() && self.place().is_none() {
            // Nothing is done to whichever came into its place.
            self.chosen = None;
            self.message = "the chosen incident is not in this list any more".into();
        }
    }

    /// The place of the chosen incident.
    pub fn place(&self) -> Option<usize> {
        let chosen = self.chosen.as_deref()?;
        self.list.iter().position(|one| one["id"] == chosen)
    }

    /// What one wants with a key.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Wish::Quit;
        }
        if let Some((typing, typed)) = self.typing.take() {
            return self.type_on(typing, typed, key.code);
        }
        if std::mem::take(&mut self.helps) {
            return Wish::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?') => self.helps = true,
            KeyCode::Char('r') => return Wish::Read,
            KeyCode::Char('/') => self.typing = Some((Typing::Filter, self.filter.clone())),
            KeyCode::Char('o') if self.open.is_none() => {
                self.is_known = false;
                self.status = (self.status + 1) % STATUSES.len();
                return Wish::Read;
            }
            KeyCode::Char('t') if self.open.is_none() => {
                self.is_known = false;
                self.sort = (self.sort + 1) % SORTS.len();
                return Wish::Read;
            }
            KeyCode::Char('a') => return self.act("acknowledge", json!({}), false),
            KeyCode::Char('m') => return self.act("assign", json!({"assignee": self.login}), true),
            KeyCode::Char('s') => self.begin(Typing::Assignee),
            KeyCode::Char('c') => self.begin(Typing::Comment),
            KeyCode::Char('x') => self.begin(Typing::Cause),
            KeyCode::Tab | KeyCode::Right => self.turn(true),
            KeyCode::BackTab | KeyCode::Left => self.turn(false),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(20),
            KeyCode::PageUp => self.step(-20),
            KeyCode::Home => self.step(isize::MIN / 2),
            KeyCode::End => self.step(isize::MAX / 2),
            KeyCode::Enter if self.open.is_none() => {
                if let Some(id) = self.chosen.clone() {
                    self.open = Some(Open { id, ..Open::default() });
                    self.scroll = 0;
                    return Wish::Read;
                }
            }
            KeyCode::Esc if self.open.is_some() => self.open = None,
            KeyCode::Esc if !self.filter.is_empty() => {
                self.is_known = false;
                self.filter.clear();
                return Wish::Read;
            }
            _ => {}
        }
        Wish::Nothing
    }

    /// The incident that an act is for: the open one, else the chosen one.
    fn subject(&self) -> Option<String> {
        self.open.as_ref().map(|open| open.id.clone()).or_else(|| self.chosen.clone())
    }

    /// The entity tag of the open incident, if it was read whole.
    fn seen(&self) -> Option<String> {
        self.open.as_ref().and_then(|open| open.incident["etag"].as_str()).map(str::to_owned)
    }

    fn begin(&mut self, typing: Typing) {
        if let Some(id) = self.subject() {
            self.subject = Some((id, self.seen()));
            self.typing = Some((typing, String::new()));
        }
    }

    /// An act; where an update could be lost, only on what was seen, if it was read whole. What was typed is for the
    /// incident that it was begun for, whatever the list has become meanwhile.
    fn act(&mut self, act: &'static str, body: Value, as_seen: bool) -> Wish {
        let begun = self.subject.take();
        let Some((id, seen)) = begun.or_else(|| Some((self.subject()?, self.seen()))) else { return Wish::Nothing };
        Wish::Act { id, act, body, seen: seen.filter(|_| as_seen) }
    }

    fn type_on(&mut self, typing: Typing, mut typed: String, code: KeyCode) -> Wish {
        match code {
            KeyCode::Esc => {
                self.subject = None;
                return Wish::Nothing;
            }
            KeyCode::Enter => return self.typed(typing, typed.trim().to_owned()),
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(character) if typed.chars().count() < TYPED_MAX => typed.push(character),
            _ => {}
        }
        self.typing = Some((typing, typed));
        Wish::Nothing
    }

    fn typed(&mut self, typing: Typing, typed: String) -> Wish {
        match typing {
            Typing::Filter => {
                self.filter = typed;
                self.is_known = false;
                self.open = None;
                Wish::Read
            }
            _ if typed.is_empty() => {
                self.subject = None;
                self.message = "nothing was typed, nothing is done".into();
                Wish::Nothing
            }
            Typing::Assignee => self.act("assign", json!({"assignee": typed}), true),
            Typing::Comment => self.act("comments", json!({"text": typed}), false),
            Typing::Cause => {
                self.typing = Some((Typing::Actions { cause: typed }, String::new()));
                Wish::Nothing
            }
            Typing::Actions { cause } => self.act("close", json!({"cause": cause, "actions": typed}), true),
        }
    }

    fn turn(&mut self, forward: bool) {
        self.scroll = 0;
        self.part = match (self.part, forward) {
            (Part::Timeline, true) | (Part::Facts, false) => Part::Entities,
            (Part::Entities, true) | (Part::Timeline, false) => Part::Facts,
            (Part::Facts, true) | (Part::Entities, false) => Part::Timeline,
        };
    }

    /// Moves the choice, or what is open.
    fn step(&mut self, by: isize) {
        if self.open.is_some() {
            let to = isize::from(i16::try_from(self.scroll).unwrap_or(i16::MAX)).saturating_add(by);
            self.scroll = u16::try_from(to.clamp(0, isize::from(i16::MAX))).unwrap_or(0);
            return;
        }
        let last = self.list.len().saturating_sub(1);
        let to = self.place().map_or(0, |place| place.saturating_add_signed(by)).min(last);
        self.chosen = self.list.get(to).map(|one| text(&one["id"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn state() -> State {
        let mut state = State::new("ann".into());
        state.listed(&json!({"total": 2, "incidents": [{"id": "i1"}, {"id": "i2"}]}));
        state
    }

    fn press(state: &mut State, keys: &str) -> Wish {
        let mut last = Wish::Nothing;
        for character in keys.chars() {
            last = state.press(key(match character {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                other => KeyCode::Char(other),
            }));
        }
        last
    }

    #[test]
    fn the_choice_stays_with_its_incident_when_the_list_moves() {
        let mut state = state();
        press(&mut state, "j");
        assert_eq!(state.place(), Some(1));
        state.listed(&json!({"incidents": [{"id": "i3"}, {"id": "i4"}, {"id": "i2"}]}));
        assert_eq!((state.place(), state.chosen.as_deref()), (Some(2), Some("i2")));
        state.listed(&json!({"incidents": [{"id": "i5"}]}));
        assert_eq!(press(&mut state, "a"), Wish::Nothing);
        assert_eq!(state.chosen, None);
        press(&mut state, "j");
        assert_eq!(state.chosen.as_deref(), Some("i5"));
    }

    #[test]
    fn what_is_typed_is_for_the_incident_it_was_begun_for() {
        let mut state = state();
        press(&mut state, "jxdrill\n");
        // Meanwhile a colleague closes it, and another comes first.
        state.listed(&json!({"incidents": [{"id": "i9"}, {"id": "i1"}]}));
        let close = json!({"cause": "drill", "actions": "none"});
        assert_eq!(press(&mut state, "none\n"), Wish::Act { id: "i2".into(), act: "close", body: close, seen: None });
        press(&mut state, "j\n");
        state.open.as_mut().unwrap().incident = json!({"etag": "v7"});
        press(&mut state, "seve");
        state.open.as_mut().unwrap().incident = json!({"etag": "v8"});
        let Wish::Act { seen, .. } = press(&mut state, "\n") else { panic!("an act") };
        assert_eq!(seen.as_deref(), Some("v7"), "as it was when they began");
    }

    #[test]
    fn keys_ask_for_acts_on_what_is_chosen_or_open() {
        let act = |id: &str, act, body, seen: Option<&str>| Wish::Act {
            id: id.into(),
            act,
            body,
            seen: seen.map(str::to_owned),
        };
        let mut state = state();
        assert_eq!(press(&mut state, "a"), act("i1", "acknowledge", json!({}), None));
        assert_eq!(press(&mut state, "m"), act("i1", "assign", json!({"assignee": "ann"}), None));
        assert_eq!(press(&mut state, "j\n"), Wish::Read);
        state.open.as_mut().unwrap().incident = json!({"etag": "v7"});
        assert_eq!(press(&mut state, "seve\n"), act("i2", "assign", json!({"assignee": "eve"}), Some("v7")));
        assert_eq!(press(&mut state, "cseen q?\n"), act("i2", "comments", json!({"text": "seen q?"}), None));
        let close = json!({"cause": "drill", "actions": "none"});
        assert_eq!(press(&mut state, "xdrill\nnone\n"), act("i2", "close", close, Some("v7")));
        assert_eq!(press(&mut state, "x \n"), Wish::Nothing, "no cause, no closing");
        assert_eq!(press(&mut state, "xdri\u{1b}"), Wish::Nothing, "given up");
        assert_eq!((state.typing.clone(), press(&mut state, "q")), (None, Wish::Quit));
    }

    #[test]
    fn filter_status_and_order_are_in_the_address() {
        let mut state = state();
        press(&mut state, "/a&b\n");
        press(&mut state, "ot");
        assert_eq!(state.list_path(), "/v1/incidents?limit=200&status=new&sort=severity&text=a%26b");
        assert_eq!(state.terms(), "new, by severity, with 'a&b'");
        assert_eq!(press(&mut state, "\u{1b}"), Wish::Read);
        assert!(state.filter.is_empty());
    }

    proptest! {
        #[test]
        fn any_keys_leave_a_choice_that_is_there(keys in "[ajkqmscxotr/?\n\u{1b}é ]{0,40}") {
            let mut state = state();
            press(&mut state, &keys);
            state.step(1);
            prop_assert!(state.place().is_some());
            prop_assert!(state.list_path().is_ascii());
        }
    }
}
