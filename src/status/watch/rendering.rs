//! Styles, bars and lines of the live view.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

pub(crate) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
/// Labels, the empty part of a bar, and other things of little weight. A grey would be illegible on some backgrounds.
pub(crate) const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// The agency that was looked for.
pub(crate) const FOUND: Style = Style::new().add_modifier(Modifier::REVERSED);
/// An agency that sends bets.
pub(crate) const BUSY: Style = Style::new().fg(Color::Cyan);
/// An agency that has ended; the draw, once it is made.
pub(crate) const DONE: Style = Style::new().fg(Color::Green);
/// Something that may need attention.
pub(crate) const IDLE: Style = Style::new().fg(Color::Yellow);
/// An error.
pub(crate) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Renders as many lines as fit, from the top of the area. A line that is cut ends with `…`.
pub(crate) fn render_lines(frame: &mut Frame<'_>, area: Rect, lines: &[Line<'_>]) {
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
        if line.width() > row.width.into()
            && let Some(last) = frame.buffer_mut().cell_mut((row.right().saturating_sub(1), row.y))
        {
            last.set_symbol("…");
        }
    }
}

pub(crate) fn remove_colours(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        cell.set_fg(Color::Reset);
    }
}

/// Returns the full and the empty part of a bar of `width` columns, with a precision of half a column.
pub(crate) fn bar_of(part: u64, whole: u64, width: usize) -> (String, String) {
    let whole = u128::from(whole.max(1));
    let halves = usize::try_from(u128::from(part) * width as u128 * 2 / whole).unwrap_or(0).min(width * 2);
    // Anything above zero is visible.
    let halves = if part > 0 { halves.max(width.min(1)) } else { 0 };
    let half = if halves % 2 == 1 { "╸" } else { "" };
    ("━".repeat(halves / 2) + half, "─".repeat(width - halves.div_ceil(2)))
}
