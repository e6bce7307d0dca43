//! The agencies of the live view, a bar for each.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::history::Progress;
use super::list::ListState;
use super::rendering::{BUSY, DONE, EMPTY, FAINT, FOUND, IDLE, bar_of, render_lines};
use crate::status::text::{grouped, long_time, rate};

/// The least width of an agency's line.
const NARROW: u16 = 37;
/// The space between two columns of agencies.
const GAP: u16 = 3;
/// An agency is shown as idle if it has stored no bet for this many seconds.
const IDLE_AFTER: f64 = 5.0;

/// The width of an agency's number.
const NUMBER: usize = 6;
/// The width of the rate or the state.
const NOTE: usize = 11;
/// Up to this many agencies are in one column, if there is room.
const FEW: usize = 10;

fn columns_in(width: u16) -> u16 {
    ((width + GAP) / (NARROW + GAP)).max(1)
}

/// The number of lines that the agencies need at that width, without their title.
pub(crate) fn rows_needed(agencies: usize, width: u16) -> u16 {
    let columns = usize::from(columns_in(width));
    let rows = if agencies <= FEW { agencies } else { agencies.div_ceil(columns).max(FEW) };
    u16::try_from(rows).unwrap_or(u16::MAX)
}

/// Renders as many as fit. Returns the title.
pub(crate) fn render(
    frame: &mut Frame<'_>,
    area: Rect,
    agencies: &[Progress<'_>],
    list: &mut ListState,
) -> String {
    let rows = usize::from(area.height).max(1);
    let needed = u16::try_from(agencies.len().div_ceil(rows)).unwrap_or(u16::MAX);
    let columns = needed.clamp(1, columns_in(area.width));
    let page = list.page(agencies, rows * usize::from(columns));
    let in_column = page.len().div_ceil(columns.into()).max(1);
    let width = (area.width + GAP) / columns - GAP;
    let most = agencies.iter().map(|progress| progress.agency.bets).max().unwrap_or(0);
    for (column, agencies) in (0..columns).zip(page.chunks(in_column)) {
        let line = |progress: &&Progress<'_>| {
            let line = bar_line(progress, most, width);
            let is_found = list.found == Some(progress.agency.agency);
            if is_found { Line::styled(line.to_string(), FOUND) } else { line }
        };
        let lines: Vec<Line<'_>> = agencies.iter().map(line).collect();
        render_lines(frame, Rect { x: area.x + column * (width + GAP), width, ..area }, &lines);
    }
    let order = if list.is_by_number { "by number" } else { "furthest behind first" };
    match (page.len(), agencies.len()) {
        (shown, all) if shown < all => {
            let [from, to, all] =
                [list.first + 1, list.first + shown, all].map(|place| grouped(place as u64));
            format!(" agencies {from} to {to} of {all}, {order}")
        }
        (0, _) => String::new(),
        _ if list.is_by_number => " agencies".to_owned(),
        _ => format!(" agencies, {order}"),
    }
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
