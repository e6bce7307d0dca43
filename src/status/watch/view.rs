//! Renders the live view, on a terminal of any size.

use chrono::{DateTime, Local};
use ratatui::Frame;
use ratatui::layout::Constraint::{Length, Min};
use ratatui::layout::{Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::agencies::{ListState, rows_needed};
use super::events::is_full;
use super::history::History;
use super::rendering::{BAD, BUSY, DONE, FAINT, IDLE, STRONG, bar_of, render_lines};
use crate::lottery::hex::hex;
use crate::protocol::status::Status;
use crate::status::text::{counted, grouped, long_time, rate, short_time};

/// The lines that are kept free for events below the agencies, with the blank line and the title.
const EVENTS: u16 = 5;
/// A terminal with fewer lines has no blank ones, and events only if the agencies leave room.
const HIGH: u16 = 20;
/// A terminal with fewer lines has no title above the agencies.
const LOW: u16 = 12;
/// The width of the summary where the events are beside it.
const SUMMARY: u16 = 78;
/// A terminal with fewer columns never has the events beside the summary.
const WIDE: u16 = 120;
/// The greatest width of the bar that shows how many agencies have ended.
const ENDED_BAR: usize = 24;
/// The widths of a line's label and of its parts, with the space behind them.
const LABEL: usize = 10;
const PART: usize = 16;
/// A certificate that ends within so many days is marked.
const SOON: i64 = 30;

pub(crate) fn render(frame: &mut Frame<'_>, history: &History, list: &mut ListState, now: DateTime<Local>) {
    let area = frame.area();
    let is_wide = area.width >= WIDE;
    let summary = summary_lines(history, if is_wide { SUMMARY } else { area.width });
    let agencies = history.agencies();
    let [gap, title_height] = [HIGH, LOW].map(|least| u16::from(area.height >= least));
    let summary_height = u16::try_from(summary.len()).unwrap_or(u16::MAX);
    let room = area.height.saturating_sub(2 + summary_height + 2 * gap + title_height);
    let needed = rows_needed(agencies.len(), area.width);
    let is_beside = is_wide && needed + EVENTS > room;
    let gap_below = if is_beside { 0 } else { gap };
    let rows = needed.min(room.saturating_sub(gap_below * EVENTS));
    let lengths = [1, gap, summary_height, gap, title_height, rows, gap_below].map(Length);
    let [head, _, upper, _, title, rows, _, lower, help] =
        Layout::vertical(lengths.into_iter().chain([Min(0), Length(1)])).areas(area);
    render_lines(frame, upper, &summary);
    let text = list.render(frame, rows, &agencies);
    render_lines(frame, title, &[Line::styled(text, FAINT)]);
    if history.silent.is_some() {
        // What is shown may have changed since.
        frame.buffer_mut().set_style(upper.union(rows), FAINT);
    }
    render_head(frame, head, history, now);
    if is_beside {
        let beside = Rect { x: SUMMARY, width: area.width - SUMMARY, ..upper };
        render_lines(frame, beside, &event_lines(history));
    } else {
        let title = Line::styled(" events", FAINT);
        render_lines(frame, lower, &[vec![title], event_lines(history)].concat());
    }
    render_lines(frame, help, &[list.help(agencies.len(), area.width)]);
}

fn render_head(frame: &mut Frame<'_>, area: Rect, history: &History, now: DateTime<Local>) {
    let mut head = Line::from(vec![Span::styled(" loteria ", STRONG), Span::raw(&history.address)]);
    if let Some((since, reason)) = &history.silent {
        let seconds = long_time((now - *since).as_seconds_f64());
        head = Line::styled(format!(" no answer for {seconds}  {}: {reason}", history.address), BAD);
    } else if let Some(status) = history.latest() {
        head.extend(status.certificate_until.map(|until| certificate(until, now)));
        head.push_span(Span::styled(format!("  up {}", long_time(status.uptime_seconds)), FAINT));
    } else {
        head.push_span(Span::styled("  asking", FAINT));
    }
    let clock = Line::styled(format!("  {} ", now.format("%H:%M:%S")), FAINT);
    if head.width() + clock.width() <= area.width.into() {
        frame.render_widget(clock.right_aligned(), area);
    }
    render_lines(frame, area, &[head]);
}

/// Tells how long the server's certificate is still valid.
fn certificate(until: i64, now: DateTime<Local>) -> Span<'static> {
    let days = until.saturating_sub(now.timestamp()).div_euclid(86_400);
    let left = if days < 0 { "expired".to_owned() } else { format!("{days}d") };
    Span::styled(format!("  certificate {left}"), if days < SOON { BAD } else { FAINT })
}

/// The most important comes first: a low terminal lacks the last lines, a narrow one the last parts of each line.
fn summary_lines(history: &History, width: u16) -> Vec<Line<'static>> {
    let Some(status) = history.latest() else { return Vec::new() };
    let hash = status.seal().map(|seal| hex(&seal.sha256).to_string());
    // A part of a hash would be of no use.
    let hash = hash.filter(|hash| LABEL + hash.len() <= width.into());
    let mut lines = vec![("draw", draw_parts(status, width))];
    lines.extend(hash.map(|hash| ("sha256", vec![Span::raw(hash)])));
    lines.extend([
        ("stored", stored_parts(status, history)),
        ("refused", refused_parts(status)),
        ("disk", disk_parts(status, history)),
        ("clients", clients_parts(status)),
    ]);
    lines.into_iter().map(|(label, parts)| summary_line(label, parts, width)).collect()
}

/// The parts begin in the same columns as those of the other lines, as far as there is room.
fn summary_line(label: &str, parts: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let mut line = Line::from(Span::styled(format!(" {label}"), FAINT));
    for (index, part) in parts.into_iter().enumerate() {
        let room = usize::from(width).saturating_sub(line.width() + part.width());
        if index > 1 && room < 2 {
            break;
        }
        let space = (LABEL + index * PART).saturating_sub(line.width()).min(room).max(2);
        line.extend([Span::raw(" ".repeat(space)), part]);
    }
    line
}

fn draw_parts(status: &Status, width: u16) -> Vec<Span<'static>> {
    if let Some(draw) = &status.draw {
        let number = format!("winning number {}", draw.winning_number);
        let strong = DONE.add_modifier(Modifier::BOLD);
        return vec![Span::styled(number, strong), Span::styled(draw.at.clone(), DONE)];
    }
    let (ended, all) = (status.ended, status.agencies);
    let text = format!("{} of {} ended", grouped(ended), grouped(all));
    let bar = usize::from(width).saturating_sub(LABEL + 2 * PART).min(ENDED_BAR);
    let (full, empty) = bar_of(ended.into(), all.into(), bar);
    let state = if status.drawn { "made" } else { "not made" };
    vec![Span::styled(state, STRONG), Span::raw(text), Span::styled(full + &empty, DONE)]
}

fn stored_parts(status: &Status, history: &History) -> Vec<Span<'static>> {
    let is_busy = history.bet_rate() > Some(0.0);
    let rate = format!("{}/s", rate_or_dash(history.bet_rate()));
    vec![
        Span::styled(counted(status.bets, "bet", "bets"), STRONG),
        Span::styled(rate, if is_busy { BUSY } else { FAINT }),
        Span::styled(counted(status.batches, "message", "messages"), FAINT),
    ]
}

fn rate_or_dash(per_second: Option<f64>) -> String {
    per_second.map_or_else(|| "-".to_owned(), rate)
}

fn refused_parts(status: &Status) -> Vec<Span<'static>> {
    let refused = status.refusals.iter().filter(|refusals| refusals.count > 0);
    let sum = refused.clone().map(|refusals| refusals.count).fold(0, u64::saturating_add);
    let style = if sum > 0 { IDLE } else { FAINT };
    let reasons = refused.map(|refusals| {
        let reason = refusals.reason.replace('_', " ");
        let style = if reason == "disk" { BAD } else { style };
        Span::styled(format!("{reason} {}", grouped(refusals.count)), style)
    });
    [Span::styled(grouped(sum), style)].into_iter().chain(reasons).collect()
}

fn disk_parts(status: &Status, history: &History) -> Vec<Span<'static>> {
    let restarts = counted(status.storage_restarts, "restart", "restarts");
    let restarts = (status.storage_restarts > 0).then(|| Span::styled(restarts, BAD));
    let syncs = Span::raw(format!("{} syncs/s", rate_or_dash(history.group_rate())));
    let time = history.in_window(|status| status.sync_seconds).mean();
    let time = time.map(|mean| Span::raw(format!("{} each", short_time(mean))));
    let bets = history.in_window(|status| status.group_bets).mean();
    let bets = bets.map(|mean| Span::styled(format!("{} bets each", rate(mean)), FAINT));
    [restarts, Some(syncs), time, bets].into_iter().flatten().collect()
}

fn clients_parts(status: &Status) -> Vec<Span<'static>> {
    let open = format!("{} of {}", grouped(status.clients()), grouped(status.max_clients));
    let came = status.connections.saturating_sub(status.status_requests);
    let style = if is_full(status) { BAD } else { Style::new() };
    vec![Span::styled(open, style), Span::styled(counted(came, "connection", "connections"), FAINT)]
}

fn event_lines(history: &History) -> Vec<Line<'_>> {
    let lines = history.events.iter().map(|(when, event)| {
        let style = if event.is_bad { BAD } else { Style::new() };
        let time = Span::styled(format!(" {}   ", when.format("%H:%M:%S")), FAINT);
        Line::from(vec![time, Span::styled(&event.text, style)])
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::status_at as at;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The lines that a terminal of that size shows.
    fn screen(history: &History, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let list = &mut ListState::default();
        terminal.draw(|frame| render(frame, history, list, Local::now())).unwrap();
        let rows = terminal.backend().to_string();
        rows.lines().map(|row| row.trim_matches('"').trim_end().to_owned()).collect()
    }

    #[test]
    fn a_small_contest_is_shown_whole_in_the_order_of_its_agencies() {
        let history = History::of([
            at(10.0, &[(1000, false), (500, false), (0, true)]),
            at(12.0, &[(1500, false), (500, false), (0, true)]),
            at(16.0, &[(2000, false), (500, false), (0, true)]),
        ]);
        let screen = screen(&history, 80, 24).join("\n");
        let agencies = [
            format!("     1  {}  2,000      167/s\n", "━".repeat(54)),
            format!("     2  {}╸{}    500    idle 6s\n", "━".repeat(13), "─".repeat(40)),
            format!("     3  {}      0      ended\n", "─".repeat(54)),
        ];
        for text in [
            "loteria here:12345  up 16s",
            " draw     not made        1 of 3 ended    ━━━━━━━━────────────────",
            " stored   2,500 bets      167/s           3 messages",
            " refused  2               bets 2",
            " clients  1 of 1,024      7 connections",
            &agencies.concat(),
            "the server answers",
        ] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    /// 500 agencies. 1 to 100 have ended. Of the others, those whose number ends in 0 are idle; the rest is busy, and has
    /// more bets the higher its number.
    fn many() -> History {
        let agencies = |more: u64| -> Vec<(u64, bool)> {
            let each = |number: u64| match number {
                1..=100 => (5000, true),
                _ if number.is_multiple_of(10) => (2000, false),
                _ => (number + more, false),
            };
            (1..=500).map(each).collect()
        };
        History::of([at(10.0, &agencies(0)), at(11.0, &agencies(1))])
    }

    #[test]
    fn on_a_small_terminal_the_numbers_stay_and_those_furthest_behind_come_first() {
        let expected = [
            " draw     not made      100 of 500 ended",
            " stored   688,360 bets    360/s",
            " refused  2               bets 2",
            " disk     0 syncs/s",
            " clients  1 of 1,024      7 connections",
            "   110  ━━━━━╸────────  2,000          -",
            "   120  ━━━━━╸────────  2,000          -",
            "   130  ━━━━━╸────────  2,000          -",
            " ↑↓ scroll  / find  o order  q leave",
        ];
        let screen = screen(&many(), 40, 10);
        assert!(screen[0].starts_with(" loteria here:12345  up 11s "), "{}", screen[0]);
        assert_eq!(screen[1..], expected);
    }

    #[test]
    fn on_a_wide_terminal_that_is_full_the_events_are_beside_the_summary() {
        let screen = screen(&many(), 120, 40);
        assert!(screen[2].starts_with(" draw ") && screen[2].ends_with("the server answers"), "{screen:#?}");
    }

    #[test]
    fn a_server_that_does_not_answer_is_the_first_that_is_told() {
        let mut history = many();
        history.add(Local::now(), Err("Connection refused".to_owned()));
        let head = |width| screen(&history, width, 24).remove(0);
        assert!(head(80).starts_with(" no answer for 0s  here:12345: Connection refused"), "{}", head(80));
        assert_eq!(head(40), " no answer for 0s  here:12345: Connecti…");
        let screen = screen(&history, 80, 24);
        let rates: Vec<_> = screen.iter().filter(|line| line.contains("/s")).collect();
        assert_eq!(rates, [" stored   688,360 bets    -/s             3 messages", " disk     - syncs/s"]);
    }

    #[test]
    fn the_clock_is_shown_only_where_it_hides_nothing() {
        let history = History::of([at(10.0, &[(1000, false)])]);
        let head = |width| screen(&history, width, 24).remove(0);
        // ` loteria here:12345  up 10s` has 27 columns, the clock 11.
        assert!(head(38).contains(':') && head(38).len() > head(37).len());
        assert!(head(37).ends_with("here:12345  up 10s"), "{}", head(37));
    }

    #[test]
    fn the_head_tells_how_long_the_servers_certificate_is_valid() {
        let now = Local::now().timestamp();
        for (left, text) in [(825 * 86_400 + 100, "  certificate 825d"), (-1, "  certificate expired")] {
            let status = Status { certificate_until: Some(now + left), ..at(10.0, &[(1000, false)]) };
            assert!(screen(&History::of([status]), 80, 24)[0].contains(text), "{text}");
        }
    }

    #[test]
    fn no_size_of_a_terminal_and_no_status_is_a_panic() {
        let huge = Status { handlers: u32::MAX, ..at(1.0, &[(u64::MAX / 2, false), (1, true)]) };
        let impossible = Status { uptime_seconds: -1e300, ..huge.clone() };
        let histories = [
            History::of([]),
            History::of([at(1.0, &[])]),
            History::of([huge, impossible]),
            History::of([at(1.0, &[(1, false); 900])]),
        ];
        for history in &histories {
            for width in [1, 2, 9, 37, 38, 39, 79, 80, 200, 500] {
                for height in [1, 2, 5, 6, 7, 8, 11, 12, 13, 19, 20, 24, 70] {
                    screen(history, width, height);
                }
            }
        }
    }
}
