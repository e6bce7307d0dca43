//! Renders the live view, on a terminal of any size.

use chrono::{DateTime, Local};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::agencies::{self, rows_needed};
use super::events::is_full;
use super::history::History;
use super::list::ListState;
use super::rendering::{BAD, BUSY, DONE, FAINT, IDLE, STRONG, bar_of, render_lines};
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
/// A terminal with fewer columns has the events below the agencies, however many these are.
const WIDE: u16 = 120;
/// The most that the bar of the agencies that have ended takes.
const ENDED_BAR: usize = 24;
/// The widths of a line's label and of its parts, with the space behind them.
const LABEL: usize = 10;
const PART: usize = 16;
/// A certificate that ends within so many days is marked.
const SOON: i64 = 30;

pub(crate) fn render(frame: &mut Frame<'_>, history: &History, list: &mut ListState, now: DateTime<Local>) {
    let area = frame.area();
    let gap = u16::from(area.height >= HIGH);
    let agencies = history.agencies();
    let width = if area.width < WIDE { area.width } else { SUMMARY };
    let lines = history.latest().map_or_else(Vec::new, |status| summary_lines(status, history, width));
    let summary = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let title = u16::from(area.height >= LOW);
    let room = area.height.saturating_sub(2 + summary + 2 * gap + title);
    let needed = rows_needed(agencies.len(), area.width);
    let is_beside = area.width >= WIDE && needed + EVENTS > room;
    let below = if is_beside || area.height < HIGH { 0 } else { EVENTS };
    let rows = needed.min(room.saturating_sub(below));
    let lengths = [1, gap, summary, gap, title, rows].map(Constraint::Length);
    let rest = [Constraint::Min(0), Constraint::Length(1)];
    let [head, _, summary, _, title, rows, events, help] =
        Layout::vertical(lengths.into_iter().chain(rest)).areas(area);
    render_lines(frame, summary, &lines);
    let text = agencies::render(frame, rows, &agencies, list);
    render_lines(frame, title, &[Line::styled(text, FAINT)]);
    if history.silent.is_some() {
        // What is shown may have changed since.
        let is_old = title.union(rows).union(summary);
        frame.buffer_mut().set_style(is_old, FAINT);
    }
    render_head(frame, head, history, now);
    if is_beside {
        let beside = Rect { x: SUMMARY, width: area.width - SUMMARY, ..summary };
        render_lines(frame, beside, &event_lines(history).collect::<Vec<_>>());
    } else {
        let title = ["", " events"].into_iter().skip(usize::from(gap == 0));
        let title = title.map(|text| Line::styled(text, FAINT));
        render_lines(frame, events, &title.chain(event_lines(history)).collect::<Vec<_>>());
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

/// How long the server's certificate is still valid.
fn certificate(until: i64, now: DateTime<Local>) -> Span<'static> {
    let days = until.saturating_sub(now.timestamp()).div_euclid(86_400);
    let left = if days < 0 { "expired".to_owned() } else { format!("{days}d") };
    Span::styled(format!("  certificate {left}"), if days < SOON { BAD } else { FAINT })
}

/// The most important comes first: a low terminal lacks the last lines, a narrow one the last parts of each line.
fn summary_lines(status: &Status, history: &History, width: u16) -> Vec<Line<'static>> {
    let sealed = status.seal().map(|seal| ("sha256", vec![(seal.sha256.to_string(), Style::new())]));
    // A part of a hash would be of no use.
    let sealed = sealed.filter(|(_, parts)| parts.iter().all(|(hash, _)| LABEL + hash.len() <= width.into()));
    let mut lines = vec![("draw", draw_parts(status, width))];
    lines.extend(sealed);
    lines.extend([
        ("stored", stored_parts(status, history)),
        ("refused", refused_parts(status)),
        ("disk", disk_parts(status, history)),
        ("clients", clients_parts(status)),
    ]);
    lines.into_iter().map(|(label, parts)| summary_line(label, parts, width)).collect()
}

/// A part of a line of the summary.
type Part = (String, Style);

/// The parts begin in the same columns as those of the other lines, as far as there is room.
fn summary_line(label: &str, parts: Vec<Part>, width: u16) -> Line<'static> {
    let mut line = Line::from(Span::styled(format!(" {label}"), FAINT));
    for (index, (text, style)) in parts.into_iter().enumerate() {
        let part = Span::styled(text, style);
        let room = usize::from(width).saturating_sub(line.width() + part.width());
        if index > 1 && room < 2 {
            break;
        }
        let space = (LABEL + index * PART).saturating_sub(line.width()).min(room).max(2);
        line.push_span(Span::raw(" ".repeat(space)));
        line.push_span(part);
    }
    line
}

fn draw_parts(status: &Status, width: u16) -> Vec<Part> {
    if let Some(draw) = &status.draw {
        let number = format!("winning number {}", draw.winning_number);
        return vec![(number, DONE.add_modifier(Modifier::BOLD)), (draw.at.clone(), DONE)];
    }
    let (ended, all) = (status.ended, status.agencies);
    let text = format!("{} of {} ended", grouped(ended), grouped(all));
    let bar = usize::from(width).saturating_sub(LABEL + 2 * PART).min(ENDED_BAR);
    let (full, empty) = bar_of(ended.into(), all.into(), bar);
    let state = if status.drawn { "made" } else { "not made" };
    vec![(state.to_owned(), STRONG), (text, Style::new()), (full + &empty, DONE)]
}

fn stored_parts(status: &Status, history: &History) -> Vec<Part> {
    let is_busy = history.rate().is_some_and(|per_second| per_second > 0.0);
    vec![
        (counted(status.bets, "bet", "bets"), STRONG),
        (format!("{}/s", rate_or_dash(history.rate())), if is_busy { BUSY } else { FAINT }),
        (counted(status.batches, "message", "messages"), FAINT),
    ]
}

fn rate_or_dash(per_second: Option<f64>) -> String {
    per_second.map_or_else(|| "-".to_owned(), rate)
}

fn refused_parts(status: &Status) -> Vec<Part> {
    let refused = status.refusals.iter().filter(|refusals| refusals.count > 0);
    let sum = refused.clone().fold(0_u64, |sum, refusals| sum.saturating_add(refusals.count));
    let style = if sum > 0 { IDLE } else { FAINT };
    let reasons = refused.map(|refusals| {
        let reason = refusals.reason.replace('_', " ");
        (format!("{reason} {}", grouped(refusals.count)), if reason == "disk" { BAD } else { style })
    });
    [(grouped(sum), style)].into_iter().chain(reasons).collect()
}

fn disk_parts(status: &Status, history: &History) -> Vec<Part> {
    let restarts = counted(status.storage_restarts, "restart", "restarts");
    let mut parts = vec![(restarts, BAD)];
    parts.retain(|_| status.storage_restarts > 0);
    parts.push((format!("{} syncs/s", rate_or_dash(history.groups())), Style::new()));
    parts.extend(
        history.sync_seconds().mean().map(|mean| (format!("{} each", short_time(mean)), Style::new())),
    );
    parts.extend(history.group_bets().mean().map(|bets| (format!("{} bets each", rate(bets)), FAINT)));
    parts
}

fn clients_parts(status: &Status) -> Vec<Part> {
    let open = format!("{} of {}", grouped(status.clients()), grouped(status.max_clients));
    let came = status.connections.saturating_sub(status.status_requests);
    let style = if is_full(status) { BAD } else { Style::new() };
    vec![(open, style), (counted(came, "connection", "connections"), FAINT)]
}

fn event_lines(history: &History) -> impl Iterator<Item = Line<'_>> {
    history.events().map(|(when, event)| {
        let style = if event.is_bad { BAD } else { Style::new() };
        Line::from(vec![
            Span::styled(format!(" {}   ", when.format("%H:%M:%S")), FAINT),
            Span::styled(event.text.clone(), style),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, status_at as at};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The lines that a terminal of that size shows.
    fn screen(history: &History, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let list = &mut ListState::default();
        terminal.draw(|frame| render(frame, history, list, Local::now())).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    fn history(statuses: impl IntoIterator<Item = Status>) -> History {
        let mut history = History::new("here:12345");
        for status in statuses {
            history.add(Local::now(), Ok(status));
        }
        history
    }

    /// The numbers of the agencies on the screen, line by line: each stands before a bar.
    fn numbers(screen: &[String]) -> Vec<u16> {
        let is_bar = |word: &str| word.starts_with(['━', '─', '╸']);
        let words: Vec<&str> = screen.iter().flat_map(|line| line.split_whitespace()).collect();
        let before_bars = words.windows(2).filter(|pair| is_bar(pair[1]));
        before_bars.filter_map(|pair| pair[0].parse().ok()).collect()
    }

    #[test]
    fn a_small_contest_is_shown_whole_in_the_order_of_its_agencies() {
        let history = history([
            at(10.0, &[(1000, false), (500, false), (0, true)]),
            at(12.0, &[(1500, false), (500, false), (0, true)]),
            at(16.0, &[(2000, false), (500, false), (0, true)]),
        ]);
        let screen = screen(&history, 80, 24);
        let has = |text: &str| assert!(screen.iter().any(|line| line.contains(text)), "{text}\n{screen:#?}");
        assert_eq!(numbers(&screen), [1, 2, 3]);
        has("loteria here:12345  up 16s");
        has(" draw     not made        1 of 3 ended    ━━━━━━━━────────────────");
        has(" stored   2,500 bets      167/s           3 messages");
        has(" refused  2               bets 2");
        has(" clients  1 of 1,024      7 connections");
        has(&format!("     1  {}  2,000      167/s", "━".repeat(54)));
        has("    500    idle 6s");
        has("      0      ended");
        has("the server answers");
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
        history([at(10.0, &agencies(0)), at(11.0, &agencies(1))])
    }

    #[test]
    fn of_many_agencies_those_furthest_behind_come_first() {
        let screen = screen(&many(), 80, 24);
        let mut shown = numbers(&screen);
        shown.sort_unstable();
        assert_eq!(shown, (11..29).map(|tens| tens * 10).collect::<Vec<u16>>(), "{screen:#?}");
        let title = " agencies 1 to 18 of 500, furthest behind first";
        assert!(screen.iter().any(|line| line == title), "{screen:#?}");
    }

    #[test]
    fn on_a_small_terminal_the_numbers_stay() {
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
        let rates =
            screen(&history, 80, 24).into_iter().filter(|line| line.contains("/s")).collect::<Vec<_>>();
        assert_eq!(rates, [" stored   688,360 bets    -/s             3 messages", " disk     - syncs/s"]);
    }

    #[test]
    fn the_clock_is_shown_only_where_it_hides_nothing() {
        let history = history([at(10.0, &[(1000, false)])]);
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
            assert!(screen(&history([status]), 80, 24)[0].contains(text), "{text}");
        }
    }

    #[test]
    fn no_size_of_a_terminal_and_no_status_is_a_panic() {
        let huge = Status { handlers: u32::MAX, ..samples::status(&[(u64::MAX / 2, false), (1, true)]) };
        let impossible = Status { uptime_seconds: -1e300, ..huge.clone() };
        let histories = [
            history([]),
            history([at(1.0, &[])]),
            history([huge, impossible]),
            history([at(1.0, &[(1, false); 900])]),
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
