//! Regions that act at once end with the same incidents, in whatever order and batches they hear of each other.

mod incident_support;

use detection::EntityKind::{Address, User};
use detection::incident::breach::ClockKind;
use detection::incident::{Act, Board, Change, Deed, Desk, Effect, Input, Status};
use detection::{Alert, ChangeId, IncidentId, Severity};
use incident_support::{NOW_MS, act, alert, all, board, changes, check_whole, desk, step};
use proptest::prelude::*;
use proptest::sample::Index;

/// What one region does next.
#[derive(Clone, Debug)]
enum Move {
    Alert(u8),
    Superseded(u8, u8),
    Extended(u8, u64),
    Act(Index, u8, Index),
    Hear(usize, Index),
}

fn moves() -> impl Strategy<Value = Vec<(usize, u64, Move)>> {
    let one = prop_oneof![
        4 => (0..14u8).prop_map(Move::Alert),
        1 => (0..14u8, 0..14u8).prop_map(|(old, by)| Move::Superseded(old, by)),
        1 => (0..14u8, 2..9u64).prop_map(|(alert, count)| Move::Extended(alert, count)),
        6 => (any::<Index>(), 0..18u8, any::<Index>()).prop_map(|(at, what, other)| Move::Act(at, what, other)),
        2 => (0..3usize, any::<Index>()).prop_map(|(from, much)| Move::Hear(from, much)),
    ];
    prop::collection::vec((0..3usize, 0..3u64, one), 1..40)
}

/// Three users, three addresses: alerts of one user and one address each.
fn pool(number: u8) -> Alert {
    let (user, address) = (format!("u{}", number % 3), format!("a{}", number / 5));
    let severity = [Severity::Low, Severity::High, Severity::Critical][usize::from(number) % 3];
    alert(number, NOW_MS + u64::from(number) * 1_000, severity, &[(User, &user), (Address, &address)])
}

fn asked(desk: &Desk, at_ms: u64, incident: IncidentId, what: u8, other: &Index) -> Act {
    let all: Vec<IncidentId> = desk.iter().map(|incident| incident.id).collect();
    let history: Vec<ChangeId> = desk.get(incident).map_or(Vec::new(), |incident| {
        let is_undoable = |deed: &Deed| matches!(deed, Deed::Merged { .. } | Deed::Split { .. } | Deed::Undone { .. });
        incident.history.iter().filter(|entry| is_undoable(&entry.change.deed)).map(|entry| entry.id).collect()
    });
    let clock = ClockKind::GdprAuthority;
    match what {
        0 => Act::Acknowledge,
        1 => Act::Assign { to: "ann".into() },
        2 => Act::SetStatus { to: Status::OnHold },
        3 => Act::SetStatus { to: Status::InProgress },
        4 => Act::SetStatus { to: Status::Resolved },
        5 => Act::Close { post_mortem: "done".into() },
        6 | 7 => Act::Merge { from: *other.get(&all) },
        8 | 9 => {
            let alerts = desk.get(incident).map(|incident| incident.alerts.keys().copied().collect::<Vec<_>>());
            let alerts = alerts.unwrap_or_default();
            let some = alerts.iter().take(1 + other.index(alerts.len().max(1)));
            Act::Split { alerts: some.copied().collect() }
        }
        10..=12 if !history.is_empty() => Act::Undo { change: *other.get(&history) },
        13 => Act::StartClock { clock, subject: "dpa".into(), aware_ms: at_ms - 1, limit_ms: None },
        14 => Act::MeetClock { clock, subject: "dpa".into(), at_ms, reference: "R-1".into() },
        15 => Act::StopClock { clock, subject: "dpa".into() },
        16 => Act::Suppress { until_ms: at_ms + 1_000 },
        17 => Act::SetSeverity { to: Some(Severity::Medium) },
        _ => Act::Comment { text: "hm".into() },
    }
}

/// Plays the moves in three regions that hear of each other now and then; all changes that were made.
fn play(moves: Vec<(usize, u64, Move)>) -> Vec<Change> {
    let mut desks = [desk(1), desk(2), desk(3)];
    let mut made: [Vec<Change>; 3] = Default::default();
    let mut now_ms = NOW_MS + 100_000;
    for (at, after_ms, next) in moves {
        now_ms += after_ms;
        let input = match next {
            Move::Alert(number) => Input::Alert(pool(number)),
            Move::Superseded(old, by) => Input::Superseded { old: pool(old).id, by: pool(by).id },
            Move::Extended(number, count) => Input::Extended { alert: pool(number).id, count, last_ms: now_ms + count },
            Move::Act(index, what, other) => {
                let all: Vec<IncidentId> = desks[at].iter().map(|incident| incident.id).collect();
                if all.is_empty() {
                    continue;
                }
                let incident = *index.get(&all);
                let act = asked(&desks[at], now_ms, incident, what, &other);
                Input::Act { incident, by: format!("p{at}"), why: Some("so".into()), seen: None, act }
            }
            Move::Hear(from, much) => {
                let heard = made[from].iter().take(much.index(made[from].len() + 1)).cloned().collect();
                Input::Changes(heard)
            }
        };
        let mut effects: Vec<Effect> = Vec::new();
        desks[at].step(now_ms, input, &mut effects);
        made[at].extend(changes(&effects));
    }
    made.concat()
}

fn in_batches(changes: &[Change], sizes: &[usize]) -> Board {
    let (mut board, mut rest, mut sizes) = (Board::new(), changes, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().unwrap_or(&1)).clamp(1, rest.len());
        board.extend(rest[..size].to_vec());
        rest = &rest[size..];
    }
    board
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn three_regions_converge_whatever_the_order_and_the_batches(
        (made, shuffled) in moves().prop_map(play).prop_flat_map(|made| (Just(made.clone()), Just(made).prop_shuffle())),
        sizes in prop::collection::vec(1..7usize, 1..5),
    ) {
        let expect = board(made.iter().cloned());
        check_whole(&expect, &made);
        let other = in_batches(&shuffled, &sizes);
        prop_assert_eq!(all(&other), all(&expect));
        check_whole(&other, &made);
        let twice = board(shuffled.iter().chain(&made).cloned());
        prop_assert_eq!(all(&twice), all(&expect));
    }

    #[test]
    fn a_desk_restored_from_changes_stands_where_it_stood(moves in moves()) {
        let alone: Vec<_> = moves.into_iter().map(|(_, after_ms, next)| (0, after_ms, next)).collect();
        let made = play(alone);
        let mut restored = desk(1);
        restored.restore(made.iter().cloned());
        // Alone, nothing that was accepted is void later, unless something that came before it was undone.
        if !made.iter().any(|change| matches!(change.deed, Deed::Undone { .. })) {
            let mut entries = restored.iter().flat_map(|incident| &incident.history);
            prop_assert_eq!(entries.find(|entry| entry.void.is_some()), None);
        }
        prop_assert_eq!(all(restored.board()), all(&board(made)));
    }
}

/// Every order of a handful of changes that contradict each other.
#[test]
fn every_order_of_contradicting_changes_gives_the_same_incidents() {
    let (mut one, mut two, mut three) = (desk(1), desk(2), desk(3));
    let (a, first) = step(&mut one, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    let (b, second) = step(&mut one, NOW_MS, Input::Alert(alert(2, NOW_MS, Severity::High, &[(User, "bob")])));
    let known: Vec<Change> = [&first, &second].map(|entry| (*entry.change).clone()).to_vec();
    two.restore(known.clone());
    three.restore(known.clone());
    let mut made = known;
    let mut note = |entry: detection::incident::Entry| made.push((*entry.change).clone());
    note(act(&mut one, NOW_MS + 1, a.id, Act::Merge { from: b.id }).unwrap());
    note(act(&mut two, NOW_MS + 1, b.id, Act::Merge { from: a.id }).unwrap());
    let late = alert(3, NOW_MS + 5, Severity::Critical, &[(User, "bob")]);
    note(step(&mut three, NOW_MS + 1, Input::Alert(late.clone())).1);
    note(act(&mut three, NOW_MS + 2, a.id, Act::Close { post_mortem: "nothing".into() }).unwrap());
    let expect = board(made.clone());
    check_whole(&expect, &made);
    let survivor = expect.survivor(b.id).unwrap();
    assert_eq!(survivor.id, a.id, "the first merge in order holds, the one against it is void");
    assert_eq!((survivor.alerts.len(), survivor.severity), (3, Severity::Critical));
    assert_eq!(all(&expect).iter().filter(|incident| incident.merged_into.is_none()).count(), 1);
    let mut orders = 0;
    permute(&mut made.clone(), 0, &mut |order| {
        orders += 1;
        let mut board = Board::new();
        for change in order {
            board.extend([change.clone()]);
        }
        assert_eq!(all(&board), all(&expect));
    });
    assert_eq!(orders, 720);
}

fn permute(changes: &mut Vec<Change>, from: usize, visit: &mut impl FnMut(&[Change])) {
    if from == changes.len() {
        return visit(changes);
    }
    for at in from..changes.len() {
        changes.swap(from, at);
        permute(changes, from + 1, visit);
        changes.swap(from, at);
    }
}

#[test]
fn an_alert_that_two_regions_file_differently_is_in_one_incident() {
    let (mut one, mut two) = (desk(1), desk(2));
    let (ann, first) = step(&mut one, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    let shared = alert(2, NOW_MS + 1, Severity::High, &[(User, "ann"), (Address, "10.0.0.1")]);
    let (joined, joining) = step(&mut one, NOW_MS + 10, Input::Alert(shared.clone()));
    assert_eq!(joined.id, ann.id);
    // The other region has not heard of the first alert: it opens an incident of its own, and works on it.
    let (own, opening) = step(&mut two, NOW_MS + 20, Input::Alert(shared));
    let seen = act(&mut two, NOW_MS + 30, own.id, Act::Acknowledge).unwrap();
    let made: Vec<Change> = [first, joining, opening, seen].iter().map(|entry| (*entry.change).clone()).collect();
    let board = board(made.clone());
    check_whole(&board, &made);
    assert_eq!(board.survivor(own.id).unwrap().id, ann.id);
    let acknowledged = board.get(ann.id).unwrap().alarm.acknowledged.clone();
    assert_eq!(acknowledged.map(|seen| seen.by), Some("soc".into()), "what was done there is done here");
}

#[test]
fn an_alert_that_joins_while_another_region_closes_opens_the_incident_again() {
    let (mut one, mut two) = (desk(1), desk(2));
    let (incident, opening) = step(&mut one, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    two.restore([(*opening.change).clone()]);
    act(&mut one, NOW_MS + 10, incident.id, Act::Close { post_mortem: "a test".into() }).unwrap();
    let closing = one.get(incident.id).unwrap().history.last().unwrap().change.clone();
    let (_, joining) =
        step(&mut two, NOW_MS + 20, Input::Alert(alert(2, NOW_MS + 20, Severity::Low, &[(User, "ann")])));
    one.step(NOW_MS + 30, Input::Changes(vec![(*joining.change).clone()]), &mut Vec::new());
    two.restore([(*closing).clone()]);
    let (here, there) = (one.get(incident.id).unwrap(), two.get(incident.id).unwrap());
    assert_eq!(here, there);
    assert_eq!((here.status, here.alarm.acknowledged.is_none()), (Status::New, true));
}

#[test]
fn an_alert_that_joins_a_part_which_another_region_prevented_is_in_the_whole() {
    let (mut one, mut two) = (desk(1), desk(2));
    let (ann, first) = step(&mut one, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    let second = alert(2, NOW_MS, Severity::Low, &[(User, "ann"), (User, "bob")]);
    let (_, joining) = step(&mut one, NOW_MS + 1, Input::Alert(second.clone()));
    let mut made: Vec<Change> = [&first, &joining].map(|entry| (*entry.change).clone()).to_vec();
    two.restore(made.clone());
    let closing = act(&mut two, NOW_MS + 2, ann.id, Act::Close { post_mortem: "nothing".into() }).unwrap();
    // The first region has not heard of the end, parts the incident, and goes on with the part.
    let splitting = act(&mut one, NOW_MS + 3, ann.id, Act::Split { alerts: [second.id].into() }).unwrap();
    let late = alert(3, NOW_MS + 4, Severity::High, &[(User, "bob")]);
    let (part, joined) = step(&mut one, NOW_MS + 4, Input::Alert(late.clone()));
    assert_ne!(part.id, ann.id);
    made.extend([&closing, &splitting, &joined].map(|entry| (*entry.change).clone()));
    let board = board(made.clone());
    check_whole(&board, &made);
    assert_eq!(board.home(late.id), Some(ann.id));
    assert_eq!(board.survivor(part.id).map(|incident| incident.id), Some(ann.id));
}

#[test]
fn a_superseded_alert_stays_with_its_part_when_the_rest_is_merged() {
    let mut desk = desk(1);
    let (ann, first) = step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    let second = alert(2, NOW_MS, Severity::Low, &[(User, "ann"), (User, "bob")]);
    let (_, joining) = step(&mut desk, NOW_MS + 1, Input::Alert(second.clone()));
    let third = alert(3, NOW_MS, Severity::Low, &[(User, "ann"), (User, "eve")]);
    let (_, another) = step(&mut desk, NOW_MS + 2, Input::Alert(third.clone()));
    let (_, superseding) = step(&mut desk, NOW_MS + 3, Input::Superseded { old: second.id, by: third.id });
    let alerts = [second.id, third.id].into();
    let splitting = act(&mut desk, NOW_MS + 4, ann.id, Act::Split { alerts });
    let (other, opening) = step(&mut desk, NOW_MS + 5, Input::Alert(alert(4, NOW_MS, Severity::Low, &[(User, "zoe")])));
    let merging = act(&mut desk, NOW_MS + 6, other.id, Act::Merge { from: ann.id }).unwrap();
    let entries = [&first, &joining, &another, &superseding, splitting.as_ref().unwrap(), &opening, &merging];
    let made: Vec<Change> = entries.map(|entry| (*entry.change).clone()).to_vec();
    let board = board(made.clone());
    check_whole(&board, &made);
    assert_eq!(board.home(second.id), board.home(third.id));
    assert_ne!(board.home(second.id), Some(other.id));
}
