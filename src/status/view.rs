//! The live view: what is known of a server, drawn on a terminal of any size.

use chrono::{DateTime, Local};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::agencies_view::{self, rows_needed};
use super::events::is_full;
use super::history::History;
use super::model::Model;
use super::text::{grouped, long_time, rate, short_time};
use crate::protocol::status::Status;

/// The styles: without colours where `NO_COLOR` asks for that.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Whether there are colours.
    pub colours: bool,
}

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// What stands beside the matter.
    #[must_use]
    pub fn faint(self) -> Style {
        if self.colours { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// What matters.
    #[must_use]
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What goes forward.
    #[must_use]
    pub fn busy(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// What is done.
    #[must_use]
    pub fn done(self) -> Style {
        self.coloured(Color::Green)
    }

    /// What may need a look.
    #[must_use]
    pub fn idle(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// What is wrong.
    #[must_use]
    pub fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Lines of the part that sums the contest up.
const SUMMARY: u16 = 5;
/// Lines that events get at least, with their title.
const EVENTS: u16 = 5;
/// The width of the names at the left of the summary.
const NAMES: usize = 10;

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model, now: DateTime<Local>, theme: Theme) {
    let area = frame.area();
    let agencies = model.history.latest().map_or(0, |status| status.per_agency.len());
    let needed = rows_needed(agencies, area.width);
    // Blank lines are for those who have room for them.
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
    draw_head(frame, head, model, now, theme);
    let Some(status) = model.history.latest() else {
        draw_events(frame, area_below(area, head, gap), model, theme);
        return;
    };
    draw_lines(frame, summary, &summary_lines(status, &model.history, theme));
    agencies_view::draw(frame, agencies, status, &model.history, theme);
    draw_events(frame, events, model, theme);
}

fn area_below(area: Rect, head: Rect, gap: u16) -> Rect {
    let top = head.bottom().saturating_add(gap).min(area.bottom());
    Rect { y: top, height: area.bottom() - top, ..area }
}

/// Draws lines from the top of an area on, as many as fit.
pub(super) fn draw_lines(frame: &mut Frame<'_>, area: Rect, lines: &[Line<'_>]) {
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, now: DateTime<Local>, theme: Theme) {
    let mut spans = vec![Span::styled(" loteria ", theme.strong()), Span::raw(model.address.clone())];
    match (&model.silent, model.history.latest()) {
        (Some((since, _)), _) => {
            let seconds = (now - *since).num_milliseconds().max(0);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of a time that is looked at")]
            let silent = long_time(seconds as f64 / 1000.0);
            spans.push(Span::styled(format!("  no answer for {silent}"), theme.bad()));
        }
        (None, Some(status)) => {
            spans.push(Span::styled(format!("  up {}", long_time(status.uptime_seconds)), theme.faint()));
        }
        (None, None) => spans.push(Span::styled("  asking", theme.faint())),
    }
    frame.render_widget(Line::from(spans), area);
    let clock = format!("{}  q leaves ", now.format("%H:%M:%S"));
    let width = u16::try_from(clock.len()).unwrap_or(0);
    if area.width > 2 * width {
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

/// A part of a line, a few columns behind the one before.
fn next(text: &str, style: Style) -> Span<'static> {
    Span::styled(format!("   {text}"), style)
}

fn bets_line(status: &Status, history: &History, theme: Theme) -> Line<'static> {
    let per_second = history.rate().map_or_else(|| "-".to_owned(), rate);
    let goes = history.rate().is_some_and(|rate| rate > 0.0);
    let spans = [
        Span::styled(format!("{} stored", grouped(status.bets)), theme.strong()),
        next(&format!("{per_second}/s"), if goes { theme.busy() } else { theme.faint() }),
        next(&format!("{} messages", grouped(status.batches)), theme.faint()),
    ];
    named("bets", theme, spans)
}

fn agencies_line(status: &Status, theme: Theme) -> Line<'static> {
    let (ended, all) = (status.ended, status.agencies);
    let style = if ended == all { theme.done() } else { Style::new() };
    let text = format!("{} of {} ended", grouped(ended.into()), grouped(all.into()));
    named("agencies", theme, [Span::styled(text, style)])
}

fn draw_line(status: &Status, theme: Theme) -> Line<'static> {
    let span = match &status.draw {
        Some(draw) => Span::styled(
            format!("{} won, {}", draw.winning_number, draw.at),
            theme.done().add_modifier(Modifier::BOLD),
        ),
        None => Span::raw("not made"),
    };
    named("draw", theme, [span])
}

fn connections_line(status: &Status, theme: Theme) -> Line<'static> {
    let refused = status.refusals.iter().fold(0_u64, |sum, refusals| sum.saturating_add(refusals.count));
    let open =
        format!("{} of {} handlers", grouped(status.handlers.into()), grouped(status.max_clients.into()));
    let spans = [
        Span::styled(open, if is_full(status) { theme.bad() } else { Style::new() }),
        next(&format!("{} connections", grouped(status.connections)), theme.faint()),
        next(
            &format!("{} refusals", grouped(refused)),
            if refused > 0 { theme.idle() } else { theme.faint() },
        ),
    ];
    named("handlers", theme, spans)
}

fn storage_line(status: &Status, history: &History, theme: Theme) -> Line<'static> {
    let (groups, syncs) = (history.groups().unwrap_or(0.0), history.sync_seconds());
    let mut spans = vec![Span::raw(format!("{} groups/s", rate(groups)))];
    if let Some(bets) = history.group_bets().mean() {
        spans.push(next(&format!("{} bets each", rate(bets)), theme.faint()));
    }
    if let (Some(mean), Some(most)) = (syncs.mean(), syncs.bound_of(99)) {
        let most = if most.is_finite() { short_bound(most) } else { "more than that".to_owned() };
        spans.push(next(&format!("sync {}, 99 % in {most}", short_time(mean)), Style::new()));
    }
    let restarts = status.storage_restarts;
    let style = if restarts > 0 { theme.bad() } else { theme.faint() };
    spans.push(next(&format!("{} restarts", grouped(restarts)), style));
    named("storage", theme, spans)
}

/// A bound of a histogram: a round number.
fn short_bound(seconds: f64) -> String {
    if seconds >= 1.0 { format!("{seconds} s") } else { format!("{} ms", (seconds * 1e5).round() / 100.0) }
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let title = Line::from(vec![Span::styled(" events", theme.faint())]);
    let events = model.events().map(|(when, event)| {
        let style = if event.is_bad() { theme.bad() } else { Style::new() };
        Line::from(vec![
            Span::styled(format!(" {}   ", when.format("%H:%M:%S")), theme.faint()),
            Span::styled(event.to_string(), style),
        ])
    });
    let lines: Vec<Line<'_>> = [title].into_iter().chain(events).take(area.height.into()).collect();
    draw_lines(frame, area, &lines);
}
