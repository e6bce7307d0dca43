//! Draws the live view, on a terminal of any size.

use chrono::{DateTime, Local};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::agencies::{self, rows_needed};
use super::drawing::{BAD, BUSY, DONE, EMPTY, FAINT, IDLE, STRONG, bar_of, draw_lines};
use super::events::is_full;
use super::history::History;
use crate::lottery::Seal;
use crate::protocol::status::Status;
use crate::status::table::draw_of;
use crate::status::text::{counted, grouped, long_time, rate, short_time};

/// The lines that are kept free for events, including their title.
const EVENTS: u16 = 5;
/// The width of the bar of the agencies that have ended.
const ENDED_BAR: usize = 20;
/// The width of the labels of the summary.
const LABEL: usize = 10;
/// A certificate that ends within so many days is marked.
const SOON: i64 = 30;

pub(crate) fn draw(frame: &mut Frame<'_>, history: &History, now: DateTime<Local>) {
    let area = frame.area();
    // A low terminal has no room for blank lines.
    let gap = u16::from(area.height >= 20);
    let lines = history.latest().map_or_else(Vec::new, |status| summary_lines(status, history));
    let summary = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let room = area.height.saturating_sub(1 + summary + EVENTS + 3 * gap);
    let agencies =
        history.latest().map_or(0, |status| rows_needed(status.per_agency.len(), area.width).min(room));
    let lengths = [1, gap, summary, gap, agencies, gap].map(Constraint::Length);
    let [head, _, summary, _, agencies, _, events] =
        Layout::vertical(lengths.into_iter().chain([Constraint::Min(0)])).areas(area);
    draw_head(frame, head, history, now);
    draw_lines(frame, summary, &lines);
    agencies::draw(frame, agencies, &history.agencies());
    draw_events(frame, events, history);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, history: &History, now: DateTime<Local>) {
    let state = match (&history.silent, history.latest()) {
        (Some((since, _)), _) => {
            let seconds = (now - *since).as_seconds_f64();
            Span::styled(format!("  no answer for {}", long_time(seconds)), BAD)
        }
        (None, Some(status)) => Span::styled(format!("  up {}", long_time(status.uptime_seconds)), FAINT),
        (None, None) => Span::styled("  asking", FAINT),
    };
    let mut head = Line::from(vec![Span::styled(" loteria ", STRONG), Span::raw(&history.address), state]);
    head.extend(history.latest().and_then(|status| Some(certificate(status.certificate_until?, now))));
    let clock = Line::styled(format!("  {}  q leaves ", now.format("%H:%M:%S")), FAINT);
    if head.width() + clock.width() <= area.width.into() {
        frame.render_widget(clock.right_aligned(), area);
    }
    frame.render_widget(head, area);
}

/// How long the server's certificate is still valid.
fn certificate(until: i64, now: DateTime<Local>) -> Span<'static> {
    let days = until.saturating_sub(now.timestamp()).div_euclid(86_400);
    let left = if days < 0 { "expired".to_owned() } else { format!("{days}d") };
    Span::styled(format!("  certificate {left}"), if days < SOON { BAD } else { FAINT })
}

fn summary_lines(status: &Status, history: &History) -> Vec<Line<'static>> {
    let mut lines = vec![bets_line(status, history), agencies_line(status), draw_line(status)];
    lines.extend(status.seal().map(seal_line));
    lines.extend([connections_line(status), storage_line(status, history)]);
    lines
}

fn labelled(label: &str, spans: impl IntoIterator<Item = Span<'static>>) -> Line<'static> {
    let label = Span::styled(format!(" {label:<LABEL$} "), FAINT);
    [label].into_iter().chain(spans).collect()
}

/// A further part of a line, with some space before it.
fn next(text: &str, style: Style) -> Span<'static> {
    Span::styled(format!("   {text}"), style)
}

fn bets_line(status: &Status, history: &History) -> Line<'static> {
    let (per_second, style) = match history.rate() {
        Some(per_second) => (rate(per_second), if per_second > 0.0 { BUSY } else { FAINT }),
        None => ("-".to_owned(), FAINT),
    };
    let spans = [
        Span::styled(format!("{} stored", grouped(status.bets)), STRONG),
        next(&format!("{per_second}/s"), style),
        next(&counted(status.batches, "message", "messages"), FAINT),
    ];
    labelled("bets", spans)
}

fn agencies_line(status: &Status) -> Line<'static> {
    let (ended, all) = (status.ended, status.agencies);
    let text = format!("{} of {} ended", grouped(ended), grouped(all));
    let (full, empty) = bar_of(ended.into(), all.into(), ENDED_BAR);
    let style = if ended == all { DONE } else { Style::new() };
    labelled("agencies", [Span::styled(full, DONE), Span::styled(empty, EMPTY), next(&text, style)])
}

fn draw_line(status: &Status) -> Line<'static> {
    let style = if status.drawn { DONE.add_modifier(Modifier::BOLD) } else { Style::new() };
    labelled("draw", [Span::styled(draw_of(status), style)])
}

/// The hash fits on a terminal of 80 columns.
fn seal_line(seal: Seal) -> Line<'static> {
    let bets = next(&counted(seal.bets, "bet", "bets"), FAINT);
    let bytes = next(&counted(seal.bytes, "byte", "bytes"), FAINT);
    labelled("sha256", [Span::raw(seal.sha256.to_string()), bets, bytes])
}

fn connections_line(status: &Status) -> Line<'static> {
    let refused = status.refusals.iter().fold(0_u64, |sum, refusals| sum.saturating_add(refusals.count));
    let open = format!("{} of {} in use", grouped(status.handlers), grouped(status.max_clients));
    let spans = [
        Span::styled(open, if is_full(status) { BAD } else { Style::new() }),
        next(&counted(status.connections, "connection", "connections"), FAINT),
        next(&counted(refused, "refusal", "refusals"), if refused > 0 { IDLE } else { FAINT }),
    ];
    labelled("handlers", spans)
}

fn storage_line(status: &Status, history: &History) -> Line<'static> {
    let mut spans = Vec::new();
    if status.storage_restarts > 0 {
        let restarts = counted(status.storage_restarts, "restart", "restarts");
        spans.push(Span::styled(format!("{restarts}   "), BAD));
    }
    spans.push(Span::raw(format!("{} groups/s", rate(history.groups().unwrap_or(0.0)))));
    if let Some(bets) = history.group_bets().mean() {
        spans.push(next(&format!("{} bets each", rate(bets)), FAINT));
    }
    if let Some(mean) = history.sync_seconds().mean() {
        spans.push(next(&format!("sync {}", short_time(mean)), Style::new()));
    }
    labelled("storage", spans)
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let title = Line::styled(" events", FAINT);
    let events = history.events().map(|(when, event)| {
        let style = if event.is_bad { BAD } else { Style::new() };
        Line::from(vec![
            Span::styled(format!(" {}   ", when.format("%H:%M:%S")), FAINT),
            Span::styled(event.text.clone(), style),
        ])
    });
    let lines: Vec<Line<'_>> = [title].into_iter().chain(events).take(area.height.into()).collect();
    draw_lines(frame, area, &lines);
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
        terminal.draw(|frame| draw(frame, history, Local::now())).unwrap();
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
        has("2,500 stored   167/s");
        has("1 of 3 ended");
        let bar = "━".repeat(55);
        has(&format!("     1  {bar}  2,000     167/s"));
        has("    500   idle 6s");
        has("      0     ended");
        has("the server answers");
    }

    #[test]
    fn of_many_agencies_those_furthest_behind_come_first_and_the_rest_is_summed_up() {
        // Agencies 1 to 100 have ended. Of the others, those whose number ends in 0 are idle; the rest is busy, and has more
        // bets the higher its number.
        let agencies = |more: u64| -> Vec<(u64, bool)> {
            let each = |number: u64| match number {
                1..=100 => (5000, true),
                _ if number.is_multiple_of(10) => (2000, false),
                _ => (number + more, false),
            };
            (1..=500).map(each).collect()
        };
        let history = history([at(10.0, &agencies(0)), at(11.0, &agencies(1))]);
        let screen = screen(&history, 80, 24);
        let mut shown = numbers(&screen);
        shown.sort_unstable();
        assert_eq!(shown, (11..27).map(|tens| tens * 10).collect::<Vec<u16>>(), "{screen:#?}");
        assert!(screen.iter().any(|line| line.contains("those furthest behind first")));
        let rest = 100 * 5000
            + 24 * 2000
            + (101..=500).filter(|number| number % 10 != 0).map(|n| n + 1).sum::<u64>();
        let sum = format!("  and 484 more: {} bets, 360/s, 100 ended", grouped(rest));
        assert!(screen.contains(&sum), "{sum}\n{screen:#?}");
    }

    #[test]
    fn the_clock_is_shown_only_where_it_hides_nothing() {
        let history = history([at(10.0, &[(1000, false)])]);
        let head = |width| screen(&history, width, 24).remove(0);
        // ` loteria here:12345  up 10s` has 27 columns, the clock 21.
        assert!(head(48).ends_with("q leaves") && head(47).ends_with("here:12345  up 10s"));
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
