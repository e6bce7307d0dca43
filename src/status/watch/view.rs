//! Draws the live view, on a terminal of any size.

use chrono::{DateTime, Local};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::agencies::{self, rows_needed};
use super::drawing::{STRONG, Theme, bar_of, draw_lines};
use super::events::is_full;
use super::history::History;
use crate::protocol::status::Status;
use crate::status::table::draw_of;
use crate::status::text::{grouped, long_time, plural, rate, short_time};

/// The lines of the summary.
const SUMMARY: u16 = 5;
/// The least lines for events, including their title.
const EVENTS: u16 = 5;
/// The width of the bar of the agencies that have ended.
const ENDED_BAR: usize = 20;
/// The width of the labels of the summary.
const NAMES: usize = 10;

pub(crate) fn draw(frame: &mut Frame<'_>, history: &History, now: DateTime<Local>, theme: Theme) {
    let area = frame.area();
    let agencies = history.latest().map_or(0, |status| status.per_agency.len());
    let needed = rows_needed(agencies, area.width);
    // A low terminal has no room for blank lines.
    let gap = u16::from(area.height >= 20);
    let rest = area.height.saturating_sub(1 + SUMMARY + 3 * gap);
    let agencies_have = needed.min(rest.saturating_sub(EVENTS));
    let [head, _, summary, _, agencies, _, events] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(gap),
        Constraint::Length(SUMMARY),
        Constraint::Length(gap),
        Constraint::Length(agencies_have),
        Constraint::Length(gap),
        Constraint::Min(0),
    ])
    .areas(area);
    draw_head(frame, head, history, now, theme);
    let Some(status) = history.latest() else {
        draw_events(frame, area_below(area, head, gap), history, theme);
        return;
    };
    draw_lines(frame, summary, &summary_lines(status, history, theme));
    agencies::draw(frame, agencies, status, history, theme);
    draw_events(frame, events, history, theme);
}

fn area_below(area: Rect, head: Rect, gap: u16) -> Rect {
    let top = head.bottom().saturating_add(gap).min(area.bottom());
    Rect { y: top, height: area.bottom() - top, ..area }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, history: &History, now: DateTime<Local>, theme: Theme) {
    let mut spans = vec![Span::styled(" loteria ", STRONG), Span::raw(history.address.clone())];
    match (&history.silent, history.latest()) {
        (Some((since, _)), _) => {
            let seconds = (now - *since).num_milliseconds().max(0);
            #[expect(clippy::cast_precision_loss, reason = "no server is down for that many milliseconds")]
            let silent = long_time(seconds as f64 / 1000.0);
            spans.push(Span::styled(format!("  no answer for {silent}"), theme.bad()));
        }
        (None, Some(status)) => {
            spans.push(Span::styled(format!("  up {}", long_time(status.uptime_seconds)), theme.faint()));
        }
        (None, None) => spans.push(Span::styled("  asking", theme.faint())),
    }
    let head = Line::from(spans);
    let clock = format!("  {}  q leaves ", now.format("%H:%M:%S"));
    let width = u16::try_from(clock.len()).unwrap_or(0);
    let fits = head.width() + clock.len() <= area.width.into();
    frame.render_widget(head, area);
    if fits {
        let right = Rect { x: area.right() - width, width, ..area };
        frame.render_widget(Line::styled(clock, theme.faint()), right);
    }
}

fn summary_lines(status: &Status, history: &History, theme: Theme) -> [Line<'static>; SUMMARY as usize] {
    [
        bets_line(status, history, theme),
        agencies_line(status, theme),
        draw_line(status, theme),
        connections_line(status, theme),
        storage_line(status, history, theme),
    ]
}

fn named(name: &str, theme: Theme, spans: impl IntoIterator<Item = Span<'static>>) -> Line<'static> {
    let mut line = Line::from(vec![Span::styled(format!(" {name:<NAMES$} "), theme.faint())]);
    line.extend(spans);
    line
}

/// A further part of a line, with some space before it.
fn next(text: &str, style: Style) -> Span<'static> {
    Span::styled(format!("   {text}"), style)
}

/// A number with a noun whose plural takes an s.
fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), plural(count, "", "s"))
}

fn bets_line(status: &Status, history: &History, theme: Theme) -> Line<'static> {
    let per_second = history.rate().map_or_else(|| "-".to_owned(), rate);
    let is_busy = history.rate().is_some_and(|rate| rate > 0.0);
    let spans = [
        Span::styled(format!("{} stored", grouped(status.bets)), STRONG),
        next(&format!("{per_second}/s"), if is_busy { theme.busy() } else { theme.faint() }),
        next(&counted(status.batches, "message"), theme.faint()),
    ];
    named("bets", theme, spans)
}

fn agencies_line(status: &Status, theme: Theme) -> Line<'static> {
    let (ended, all) = (status.ended, status.agencies);
    let style = if ended == all { theme.done() } else { Style::new() };
    let text = format!("{} of {} ended", grouped(ended.into()), grouped(all.into()));
    let (full, empty) = bar_of(ended.into(), all.into(), ENDED_BAR);
    let bar = [Span::styled(full, theme.done()), Span::styled(empty, theme.empty())];
    named("agencies", theme, bar.into_iter().chain([next(&text, style)]))
}

fn draw_line(status: &Status, theme: Theme) -> Line<'static> {
    let style = if status.drawn { theme.done().add_modifier(Modifier::BOLD) } else { Style::new() };
    named("draw", theme, [Span::styled(draw_of(status), style)])
}

fn connections_line(status: &Status, theme: Theme) -> Line<'static> {
    let refused = status.refusals.iter().fold(0_u64, |sum, refusals| sum.saturating_add(refusals.count));
    let open =
        format!("{} of {} in use", grouped(status.handlers.into()), grouped(status.max_clients.into()));
    let spans = [
        Span::styled(open, if is_full(status) { theme.bad() } else { Style::new() }),
        next(&counted(status.connections, "connection"), theme.faint()),
        next(&counted(refused, "refusal"), if refused > 0 { theme.idle() } else { theme.faint() }),
    ];
    named("handlers", theme, spans)
}

fn storage_line(status: &Status, history: &History, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    if status.storage_restarts > 0 {
        let restarts = counted(status.storage_restarts, "restart");
        spans.push(Span::styled(format!("{restarts}   "), theme.bad()));
    }
    spans.push(Span::raw(format!("{} groups/s", rate(history.groups().unwrap_or(0.0)))));
    if let Some(bets) = history.group_bets().mean() {
        spans.push(next(&format!("{} bets each", rate(bets)), theme.faint()));
    }
    if let Some(mean) = history.sync_seconds().mean() {
        spans.push(next(&format!("sync {}", short_time(mean)), Style::new()));
    }
    named("storage", theme, spans)
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, history: &History, theme: Theme) {
    let title = Line::from(vec![Span::styled(" events", theme.faint())]);
    let events = history.events().map(|(when, event)| {
        let style = if event.is_bad() { theme.bad() } else { Style::new() };
        Line::from(vec![
            Span::styled(format!(" {}   ", when.format("%H:%M:%S")), theme.faint()),
            Span::styled(event.to_string(), style),
        ])
    });
    let lines: Vec<Line<'_>> = [title].into_iter().chain(events).take(area.height.into()).collect();
    draw_lines(frame, area, &lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::Draw;
    use crate::status::samples::{self, status_at as at};
    use chrono::TimeDelta;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const PLAIN: Theme = Theme { colours: false };

    /// The lines that a terminal of that size shows.
    fn screen(history: &History, now: DateTime<Local>, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, history, now, PLAIN)).unwrap();
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

    /// The numbers of the agencies on the screen, line by line.
    fn numbers(screen: &[String]) -> Vec<u16> {
        let words = screen.iter().filter(|line| line.contains(['━', '─']) && !line.contains(" of "));
        let words = words.flat_map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut before = None;
        let mut numbers = Vec::new();
        for word in words {
            if word.starts_with(['━', '─', '╸']) {
                numbers.extend(before.and_then(|word: &str| word.parse::<u16>().ok()));
            }
            before = Some(word);
        }
        numbers
    }

    #[test]
    fn a_small_contest_is_shown_whole_in_the_order_of_its_agencies() {
        let history = history([
            at(10.0, &[(1000, false), (500, false), (0, true)]),
            at(12.0, &[(1500, false), (500, false), (0, true)]),
            at(16.0, &[(2000, false), (500, false), (0, true)]),
        ]);
        let screen = screen(&history, Local::now(), 80, 24);
        let has = |text: &str| assert!(screen.iter().any(|line| line.contains(text)), "{text}\n{screen:#?}");
        assert_eq!(numbers(&screen), [1, 2, 3]);
        has("loteria here:12345  up 16 s");
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
        let screen = screen(&history, Local::now(), 80, 24);
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
    fn a_lost_server_is_shown_at_once_and_its_last_status_stays() {
        let mut history = history([at(10.0, &[(1000, false)])]);
        let now = Local::now();
        history.add(now, Err("Connection refused".to_owned()));
        let screen = screen(&history, now + TimeDelta::seconds(7), 80, 24);
        assert!(screen[0].contains("no answer for 7 s"), "{screen:#?}");
        assert!(screen.iter().any(|line| line.contains("1,000 stored")));
        assert!(screen.iter().any(|line| line.contains("the server does not answer: Connection refused")));
    }

    #[test]
    fn the_clock_is_shown_only_where_it_hides_nothing() {
        let mut history = history([at(10.0, &[(1000, false)])]);
        let now = Local::now();
        let has_clock = |history: &History, width| screen(history, now, width, 24)[0].contains("q leaves");
        // ` loteria here:12345  up 10 s` has 28 columns, the clock 21.
        assert!(has_clock(&history, 49) && !has_clock(&history, 48));
        assert!(screen(&history, now, 40, 24)[0].ends_with("here:12345  up 10 s"));
        history.add(now, Err("Connection refused".to_owned()));
        assert!(screen(&history, now, 40, 24)[0].ends_with("here:12345  no answer for 0 s"));
    }

    #[test]
    fn the_draw_is_shown() {
        let draw = Some(Draw { at: "2026-01-01T00:00:00-03:00".into(), agencies: 1, winning_number: 7574 });
        let history = history([Status { drawn: true, draw, ..at(10.0, &[(1000, true)]) }]);
        let screen = screen(&history, Local::now(), 80, 24);
        assert!(
            screen.iter().any(|line| line.contains("made, winning number 7574, 2026-01-01T00:00:00-03:00")),
            "{screen:#?}"
        );
    }

    #[test]
    fn no_size_of_a_terminal_and_no_status_is_a_panic() {
        let huge = Status { handlers: u32::MAX, ..samples::status(&[(u64::MAX / 2, false), (1, true)]) };
        let histories =
            [history([]), history([at(1.0, &[])]), history([huge]), history([at(1.0, &[(1, false); 900])])];
        for history in &histories {
            for width in [1, 2, 9, 37, 38, 39, 79, 80, 200, 500] {
                for height in [1, 2, 5, 6, 7, 8, 11, 12, 13, 19, 20, 24, 70] {
                    screen(history, Local::now(), width, height);
                }
            }
        }
    }
}
