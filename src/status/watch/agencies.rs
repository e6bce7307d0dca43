//! The agencies of the live view, a bar for each. If not all fit, those that are furthest behind come first, and a last line
//! sums up the rest.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::drawing::{STRONG, Theme, bar_of, draw_lines};
use super::history::History;
use crate::protocol::status::{AgencyStatus, Status};
use crate::status::text::{brief_time, grouped, plural, rate};

/// The least width of an agency's line.
const NARROW: u16 = 38;
/// The space between two columns of agencies.
const GAP: u16 = 2;
/// An agency without a new bet for so many seconds is shown as idle.
const IDLE_AFTER: f64 = 5.0;

/// The width of an agency's number.
const NUMBER: usize = 6;
/// The width of the rate or the state.
const NOTE: usize = 10;
/// So many agencies get one column, if there is room.
const FEW: usize = 10;

fn columns_in(width: u16) -> u16 {
    ((width + GAP) / (NARROW + GAP)).max(1)
}

/// The lines that so many agencies need at that width, including their title.
pub(crate) fn rows_needed(agencies: usize, width: u16) -> u16 {
    let columns = usize::from(columns_in(width));
    let rows = if agencies <= FEW { agencies } else { agencies.div_ceil(columns).max(FEW) };
    u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1)
}

/// Which agencies are shown, and how they are arranged.
struct Plan {
    /// The indices of all agencies. The first `shown` of them have a line.
    order: Vec<usize>,
    shown: usize,
    columns: u16,
    /// Agencies in one column.
    in_column: usize,
}

impl Plan {
    fn new(list: Rect, status: &Status, history: &History) -> Self {
        let count = status.per_agency.len();
        let rows = usize::from(list.height);
        let needed = u16::try_from(count.div_ceil(rows)).unwrap_or(u16::MAX);
        let columns = needed.clamp(1, columns_in(list.width));
        if count <= rows * usize::from(columns) {
            let in_column = count.div_ceil(columns.into());
            return Self { order: (0..count).collect(), shown: count, columns, in_column };
        }
        // The last line sums up the rest.
        let in_column = rows - 1;
        Self {
            order: worst_first(status, history),
            shown: in_column * usize::from(columns),
            columns,
            in_column,
        }
    }
}

pub(crate) fn draw(frame: &mut Frame<'_>, area: Rect, status: &Status, history: &History, theme: Theme) {
    let Some(list_height) = area.height.checked_sub(1).filter(|height| *height > 0) else { return };
    let list = Rect { y: area.y + 1, height: list_height, ..area };
    let plan = Plan::new(list, status, history);
    let (shown, others) = plan.order.split_at_checked(plan.shown).unwrap_or_default();
    let title = if others.is_empty() { " agencies" } else { " agencies, those furthest behind first" };
    frame.render_widget(Line::styled(title, theme.faint()), Rect { height: 1, ..area });
    let width = (list.width + GAP) / plan.columns - GAP;
    let most = most_bets(status);
    let bars = Bars { width, most, digits: grouped(most).len() + 2, status, history, theme };
    for (column, places) in (0..plan.columns).zip(shown.chunks(plan.in_column.max(1))) {
        let lines: Vec<Line<'_>> = places.iter().filter_map(|place| bars.line(*place)).collect();
        draw_lines(frame, Rect { x: list.x + column * (width + GAP), width, ..list }, &lines);
    }
    if !others.is_empty() {
        let below = Rect { y: list.bottom() - 1, height: 1, ..list };
        frame.render_widget(sum_line(others, status, history), below);
    }
}

fn most_bets(status: &Status) -> u64 {
    status.per_agency.iter().map(|agency| agency.bets).max().unwrap_or(0)
}

/// The indices of the agencies: first those that have not ended, of them those that are idle, of them those with the fewest
/// bets.
fn worst_first(status: &Status, history: &History) -> Vec<usize> {
    let mut order: Vec<usize> = (0..status.per_agency.len()).collect();
    order.sort_by_cached_key(|place| {
        let agency = status.per_agency.get(*place);
        let is_busy = history.rate_of(*place).unwrap_or(0.0) > 0.0;
        (agency.is_some_and(|agency| agency.ended), is_busy, agency.map_or(0, |agency| agency.bets), *place)
    });
    order
}

/// Draws the lines of the agencies.
struct Bars<'a> {
    width: u16,
    /// The number of bets that fills a bar.
    most: u64,
    /// The width of the number of bets.
    digits: usize,
    status: &'a Status,
    history: &'a History,
    theme: Theme,
}

impl Bars<'_> {
    fn line(&self, place: usize) -> Option<Line<'static>> {
        let agency = self.status.per_agency.get(place)?;
        let (note, style) = self.note(agency, place);
        let digits = self.digits;
        let bar = usize::from(self.width).saturating_sub(NUMBER + digits + NOTE + 2);
        let (full, empty) = bar_of(agency.bets, self.most, bar);
        Some(Line::from(vec![
            Span::raw(format!("{:>NUMBER$}  ", agency.agency.get())),
            Span::styled(full, style),
            Span::styled(empty, self.theme.empty()),
            Span::raw(format!("{:>digits$}", grouped(agency.bets))),
            Span::styled(format!("{note:>NOTE$}"), style),
        ]))
    }

    fn note(&self, agency: &AgencyStatus, place: usize) -> (String, Style) {
        let (theme, idle) = (self.theme, self.history.idle(place));
        match self.history.rate_of(place) {
            _ if agency.ended => ("ended".to_owned(), theme.done()),
            _ if idle >= IDLE_AFTER => (format!("idle {}", brief_time(idle)), theme.idle()),
            Some(per_second) if per_second > 0.0 => (format!("{}/s", rate(per_second)), theme.busy()),
            _ => ("-".to_owned(), theme.faint()),
        }
    }
}

fn sum_line(others: &[usize], status: &Status, history: &History) -> Line<'static> {
    let (mut bets, mut ended, mut per_second) = (0_u64, 0, 0.0);
    for place in others {
        let Some(agency) = status.per_agency.get(*place) else { continue };
        bets = bets.saturating_add(agency.bets);
        ended += u64::from(agency.ended);
        per_second += history.rate_of(*place).unwrap_or(0.0);
    }
    let text = format!(
        "  and {} more: {} {}, {}/s, {} ended",
        grouped(others.len() as u64),
        grouped(bets),
        plural(bets, "bet", "bets"),
        rate(per_second),
        grouped(ended)
    );
    Line::styled(text, STRONG)
}
