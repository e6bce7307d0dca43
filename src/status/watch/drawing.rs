//! Styles, bars and lines of the live view.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

/// The styles. `NO_COLOR` turns colours off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    pub(crate) colours: bool,
}

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Labels and other things of little weight.
    pub(crate) fn faint(self) -> Style {
        if self.colours { Style::new().fg(Color::Gray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// The empty part of a bar.
    pub(crate) fn empty(self) -> Style {
        if self.colours { Style::new().fg(Color::DarkGray) } else { self.faint() }
    }

    /// An agency that sends bets.
    pub(crate) fn busy(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// An agency that has ended; the draw, once it is made.
    pub(crate) fn done(self) -> Style {
        self.coloured(Color::Green)
    }

    /// Something that may need attention.
    pub(crate) fn idle(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// An error.
    pub(crate) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }
}

pub(crate) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draw as many lines as fit, from the top of the area.
pub(crate) fn draw_lines(frame: &mut Frame<'_>, area: Rect, lines: &[Line<'_>]) {
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

/// The full and the empty part of a bar of `width` columns, with a precision of half a column.
pub(crate) fn bar_of(part: u64, whole: u64, width: usize) -> (String, String) {
    let whole = u128::from(whole.max(1));
    let halves = usize::try_from(u128::from(part) * width as u128 * 2 / whole).unwrap_or(0).min(width * 2);
    // Anything above zero is visible.
    let halves = if part > 0 { halves.max(width.min(1)) } else { 0 };
    let mut full = "━".repeat(halves / 2);
    full.push_str(if halves % 2 == 1 { "╸" } else { "" });
    (full, "─".repeat(width - halves.div_ceil(2)))
}
