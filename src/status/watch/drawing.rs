//! What all parts of the live view are drawn with: styles, bars, lines.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

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
    pub fn faint(self) -> Style {
        if self.colours { Style::new().fg(Color::Gray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// What is left of a bar.
    pub fn empty(self) -> Style {
        if self.colours { Style::new().fg(Color::DarkGray) } else { self.faint() }
    }

    /// What goes forward.
    pub fn busy(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// What is done.
    pub fn done(self) -> Style {
        self.coloured(Color::Green)
    }

    /// What may need a look.
    pub fn idle(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// What is wrong.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// The style of what matters.
pub const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws lines from the top of an area on, as many as fit.
pub fn draw_lines(frame: &mut Frame<'_>, area: Rect, lines: &[Line<'_>]) {
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

/// A bar of `width` columns, half a column precise: what is full of it, and what is not.
pub fn bar_of(part: u64, whole: u64, width: usize) -> (String, String) {
    let whole = u128::from(whole.max(1));
    let halves = usize::try_from(u128::from(part) * width as u128 * 2 / whole).unwrap_or(0).min(width * 2);
    // Whoever has brought anything is seen to have.
    let halves = if part > 0 { halves.max(width.min(1)) } else { 0 };
    let mut full = "━".repeat(halves / 2);
    full.push_str(if halves % 2 == 1 { "╸" } else { "" });
    (full, "─".repeat(width - halves.div_ceil(2)))
}
