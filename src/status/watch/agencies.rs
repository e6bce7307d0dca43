//! The agencies of the live view: a bar for each, and what the user does with their list: scroll, look for one, change the
//! order.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::history::Progress;
use super::rendering::{BUSY, DONE, FAINT, FOUND, IDLE, bar_of, render_lines};
use crate::lottery::AgencyId;
use crate::status::text::{grouped, long_time, rate};

/// The keys, for a wide terminal and for a narrow one.
const HELP: [&str; 2] = [
    " ↑↓ PgUp PgDn Home End scroll   / find an agency   o change the order   q leave",
    " ↑↓ scroll  / find  o order  q leave",
];
/// The most digits of an agency's number.
const DIGITS: usize = 5;
/// The least width of an agency's line.
const NARROW: u16 = 37;
/// The space between two columns of agencies.
const GAP: u16 = 3;
/// The width of an agency's number.
const NUMBER: usize = 6;
/// The width of the rate or the state.
const NOTE: usize = 11;
/// Up to this many agencies are in one column, if there is room.
const FEW: usize = 10;
/// An agency is shown as idle if it has stored no bet for this many seconds.
const IDLE_AFTER: f64 = 5.0;

#[derive(Default)]
pub(crate) struct ListState {
    /// The order that the user has chosen. True is by number, in which no agency moves; false is furthest behind first. Until
    /// a choice the order is by number if all agencies fit, or if all have ended.
    chosen_by_number: Option<bool>,
    is_by_number: bool,
    /// The place of the first agency on the screen.
    first: usize,
    /// How many agencies the screen has room for.
    page: usize,
    /// The agency that was looked for. It stays on the screen until the user scrolls.
    found: Option<AgencyId>,
    /// The digits typed so far, while the user types a number.
    typed: Option<String>,
}

impl ListState {
    /// Handles a key. Returns whether it asks to leave.
    pub(crate) fn press(&mut self, key: KeyEvent) -> bool {
        if self.takes(key.code) {
            return false;
        }
        self.typed = None;
        match key.code {
            KeyCode::Char('q' | 'Q') => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.first.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.first + 1),
            KeyCode::PageUp => self.scroll_to(self.first.saturating_sub(self.page)),
            KeyCode::PageDown => self.scroll_to(self.first + self.page),
            KeyCode::Home => self.scroll_to(0),
            // `turn_to_page` puts it back to the last page.
            KeyCode::End => self.scroll_to(usize::from(u16::MAX)),
            KeyCode::Char('o') => self.chosen_by_number = Some(!self.is_by_number),
            KeyCode::Char('/') => self.typed = Some(String::new()),
            KeyCode::Esc => self.found = None,
            _ => {}
        }
        false
    }

    fn scroll_to(&mut self, first: usize) {
        self.first = first;
        self.found = None;
    }

    /// Whether the key belongs to the number that is being typed.
    fn takes(&mut self, key: KeyCode) -> bool {
        let Some(typed) = &mut self.typed else { return false };
        match key {
            KeyCode::Char(digit) if digit.is_ascii_digit() && typed.len() < DIGITS => typed.push(digit),
            KeyCode::Backspace => drop(typed.pop()),
            _ => return false,
        }
        self.found = typed.parse().ok().and_then(|number: u16| AgencyId::new(number));
        true
    }

    /// Renders as many agencies as fit. Returns the title.
    pub(crate) fn render(&mut self, frame: &mut Frame<'_>, area: Rect, agencies: &[Progress<'_>]) -> String {
        let rows = usize::from(area.height).max(1);
        let needed = u16::try_from(agencies.len().div_ceil(rows)).unwrap_or(u16::MAX);
        let columns = needed.clamp(1, columns_in(area.width));
        let page = self.turn_to_page(agencies, rows * usize::from(columns));
        let in_column = page.len().div_ceil(columns.into()).max(1);
        let width = (area.width + GAP) / columns - GAP;
        let most = agencies.iter().map(|progress| progress.agency.bets).max().unwrap_or(0);
        for (column, agencies) in (0..columns).zip(page.chunks(in_column)) {
            let line = |progress: &&Progress<'_>| {
                let line = bar_line(progress, most, width);
                let is_found = self.found == Some(progress.agency.agency);
                if is_found { Line::styled(line.to_string(), FOUND) } else { line }
            };
            let lines: Vec<Line<'_>> = agencies.iter().map(line).collect();
            render_lines(frame, Rect { x: area.x + column * (width + GAP), width, ..area }, &lines);
        }
        self.title(page.len(), agencies.len())
    }

    fn title(&self, shown: usize, all: usize) -> String {
        let order = if self.is_by_number { "by number" } else { "furthest behind first" };
        match shown {
            0 => String::new(),
            _ if shown < all => {
                let [from, to, all] =
                    [self.first + 1, self.first + shown, all].map(|place| grouped(place as u64));
                format!(" agencies {from} to {to} of {all}, {order}")
            }
            _ if self.is_by_number => " agencies".to_owned(),
            _ => format!(" agencies, {order}"),
        }
    }

    /// Returns the agencies on the screen, in their order. The screen has room for `page` agencies.
    fn turn_to_page<'a>(&mut self, agencies: &'a [Progress<'a>], page: usize) -> Vec<&'a Progress<'a>> {
        self.page = page;
        let have_all_ended = || agencies.iter().all(|progress| progress.agency.ended);
        self.is_by_number =
            self.chosen_by_number.unwrap_or_else(|| agencies.len() <= page || have_all_ended());
        let mut ordered: Vec<&Progress<'_>> = agencies.iter().collect();
        if !self.is_by_number {
            // Those that have not ended come first, of these the idle ones, of these those with the fewest bets.
            ordered.sort_by_key(|progress| {
                (progress.agency.ended, progress.rate > Some(0.0), progress.agency.bets)
            });
        }
        let last = agencies.len().saturating_sub(page);
        self.first = self.first.min(last);
        let found = ordered.iter().position(|progress| Some(progress.agency.agency) == self.found);
        if let Some(place) = found.filter(|place| !(self.first..self.first + page).contains(place)) {
            self.first = place.saturating_sub(page / 2).min(last);
        }
        ordered.into_iter().skip(self.first).take(page).collect()
    }

    /// Returns the keys, or what is being typed.
    pub(crate) fn help(&self, agencies: usize, width: u16) -> Line<'static> {
        let Some(typed) = &self.typed else {
            let [long, short] = HELP.map(|keys| Line::styled(keys, FAINT));
            return if long.width() <= width.into() { long } else { short };
        };
        let is_missing = !typed.is_empty() && self.found.is_none_or(|id| usize::from(id.get()) > agencies);
        let end = if is_missing { "   there is none" } else { "" };
        Line::raw(format!(" find agency: {typed}_{end}"))
    }
}

fn columns_in(width: u16) -> u16 {
    ((width + GAP) / (NARROW + GAP)).max(1)
}

/// Returns how many lines the agencies need at that width, without their title.
pub(crate) fn rows_needed(agencies: usize, width: u16) -> u16 {
    let columns = usize::from(columns_in(width));
    let rows = if agencies <= FEW { agencies } else { agencies.div_ceil(columns).max(FEW) };
    u16::try_from(rows).unwrap_or(u16::MAX)
}

/// Returns the line of an agency. `most` is the number of bets that fills a bar.
fn bar_line(progress: &Progress<'_>, most: u64, width: u16) -> Line<'static> {
    let agency = progress.agency;
    let (note, style) = note(progress);
    let digits = grouped(most).len() + 2;
    let bar = usize::from(width).saturating_sub(NUMBER + digits + NOTE + 2);
    let (full, empty) = bar_of(agency.bets, most, bar);
    Line::from(vec![
        Span::raw(format!("{:>NUMBER$}  ", agency.agency.get())),
        Span::styled(full, style),
        Span::styled(empty, FAINT),
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
