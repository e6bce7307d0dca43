//! The agencies of the live view, a bar for each. If not all fit, those furthest behind come first, and the last line sums
//! up the rest.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::drawing::{BUSY, DONE, EMPTY, FAINT, IDLE, STRONG, bar_of, draw_lines};
use super::history::Progress;
use crate::status::text::{counted, grouped, long_time, rate};

/// The least width of an agency's line.
const NARROW: u16 = 38;
/// The space between two columns of agencies.
const GAP: u16 = 2;
/// An agency is shown as idle if it has stored no bet for this many seconds.
const IDLE_AFTER: f64 = 5.0;

/// The width of an agency's number.
const NUMBER: usize = 6;
/// The width of the rate or the state.
const NOTE: usize = 10;
/// Up to this many agencies are in one column, if there is room.
const FEW: usize = 10;

fn columns_in(width: u16) -> u16 {
    ((width + GAP) / (NARROW + GAP)).max(1)
}

/// The number of lines that the agencies need at that width, including their title.
pub(crate) fn rows_needed(agencies: usize, width: u16) -> u16 {
    let columns = usize::from(columns_in(width));
    let rows = if agencies <= FEW { agencies } else { agencies.div_ceil(columns).max(FEW) };
    u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1)
}

pub(crate) fn draw(frame: &mut Frame<'_>, area: Rect, agencies: &[Progress<'_>]) {
    let Some(height) = area.height.checked_sub(1).filter(|height| *height > 0) else { return };
    let list = Rect { y: area.y + 1, height, ..area };
    let rows = usize::from(height);
    let needed = u16::try_from(agencies.len().div_ceil(rows)).unwrap_or(u16::MAX);
    let columns = needed.clamp(1, columns_in(list.width));
    let mut ordered: Vec<&Progress<'_>> = agencies.iter().collect();
    let (title, in_column) = if agencies.len() <= rows * usize::from(columns) {
        (" agencies", agencies.len().div_ceil(columns.into()).max(1))
    } else {
        worst_first(&mut ordered);
        // The last line sums up the rest.
        (" agencies, those furthest behind first", rows - 1)
    };
    frame.render_widget(Line::styled(title, FAINT), Rect { height: 1, ..area });
    let (shown, others) = ordered.split_at(agencies.len().min(in_column * usize::from(columns)));
    let width = (list.width + GAP) / columns - GAP;
    let most = agencies.iter().map(|progress| progress.agency.bets).max().unwrap_or(0);
    for (column, agencies) in (0..columns).zip(shown.chunks(in_column.max(1))) {
        let lines: Vec<Line<'_>> = agencies.iter().map(|agency| bar_line(agency, most, width)).collect();
        draw_lines(frame, Rect { x: list.x + column * (width + GAP), width, ..list }, &lines);
    }
    if !others.is_empty() {
        frame.render_widget(sum_line(others), Rect { y: list.bottom() - 1, height: 1, ..list });
    }
}

/// Sorts them: first those that have not ended, among these first the idle ones, then by the number of bets.
fn worst_first(agencies: &mut [&Progress<'_>]) {
    agencies.sort_by_key(|progress| {
        let is_busy = progress.rate.is_some_and(|rate| rate > 0.0);
        (progress.agency.ended, is_busy, progress.agency.bets)
    });
}

/// The line of an agency. `most` is the number of bets that fills a bar.
fn bar_line(progress: &Progress<'_>, most: u64, width: u16) -> Line<'static> {
    let agency = progress.agency;
    let (note, style) = note(progress);
    let digits = grouped(most).len() + 2;
    let bar = usize::from(width).saturating_sub(NUMBER + digits + NOTE + 2);
    let (full, empty) = bar_of(agency.bets, most, bar);
    Line::from(vec![
        Span::raw(format!("{:>NUMBER$}  ", agency.agency.get())),
        Span::styled(full, style),
        Span::styled(empty, EMPTY),
        Span::raw(format!("{:>digits$}", grouped(agency.bets))),
        Span::styled(format!("{note:>NOTE$}"), style),
    ])
}

fn note(progress: &Progress<'_>) -> (String, Style) {
    match progress.rate {
        _ if progress.agency.ended => ("ended".to_owned(), DONE),
        _ if progress.idle >= IDLE_AFTER => (format!("idle {}", long_time(progress.idle)), IDLE),
        Some(per_second) if per_second > 0.0 => (format!("{}/s", rate(per_second)), BUSY),
        _ => ("-".to_owned(), FAINT),
    }
}

fn sum_line(others: &[&Progress<'_>]) -> Line<'static> {
    let bets = others.iter().fold(0_u64, |sum, progress| sum.saturating_add(progress.agency.bets));
    let per_second: f64 = others.iter().filter_map(|progress| progress.rate).sum();
    let ended = others.iter().filter(|progress| progress.agency.ended).count();
    let [others, ended] = [others.len(), ended].map(|count| grouped(count as u64));
    let bets = counted(bets, "bet", "bets");
    Line::styled(format!("  and {others} more: {bets}, {}/s, {ended} ended", rate(per_second)), STRONG)
}
