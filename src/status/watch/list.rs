//! What the user does with the list of agencies: scroll, look for one, change the order.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::Line;

use super::history::Progress;
use super::rendering::FAINT;
use crate::lottery::AgencyId;

/// The keys, for a wide terminal and for a narrow one.
const HELP: [&str; 2] = [
    " ↑↓ PgUp PgDn Home End scroll   / find an agency   o change the order   q leave",
    " ↑↓ scroll  / find  o order  q leave",
];
/// The most digits of an agency's number.
const DIGITS: usize = 5;

#[derive(Default)]
pub(crate) struct ListState {
    /// Whether the user has chosen the order of the numbers, in which no agency moves, or those furthest behind first. None
    /// until a choice: then the order is that of the numbers if all agencies fit, or if all have ended.
    chosen_by_number: Option<bool>,
    pub(super) is_by_number: bool,
    /// The place of the first agency on the screen.
    pub(super) first: usize,
    /// How many agencies the screen has room for.
    page: usize,
    /// The agency that was looked for. It stays on the screen until the user scrolls.
    pub(super) found: Option<AgencyId>,
    /// What has been typed of its number, while it is typed.
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
            // `page` puts it back to the last page.
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

    /// The agencies for a screen that has room for so many, in their order.
    pub(super) fn page<'a>(&mut self, agencies: &'a [Progress<'a>], page: usize) -> Vec<&'a Progress<'a>> {
        self.page = page;
        let have_all_ended = || agencies.iter().all(|progress| progress.agency.ended);
        self.is_by_number =
            self.chosen_by_number.unwrap_or_else(|| agencies.len() <= page || have_all_ended());
        let mut ordered: Vec<&Progress<'_>> = agencies.iter().collect();
        if !self.is_by_number {
            furthest_behind_first(&mut ordered);
        }
        self.first = self.first.min(agencies.len().saturating_sub(page));
        let found = ordered.iter().position(|progress| Some(progress.agency.agency) == self.found);
        if let Some(place) = found.filter(|place| !(self.first..self.first + page).contains(place)) {
            self.first = place.saturating_sub(page / 2).min(agencies.len().saturating_sub(page));
        }
        ordered.into_iter().skip(self.first).take(page).collect()
    }

    /// The keys, or what is being typed.
    pub(super) fn help(&self, agencies: usize, width: u16) -> Line<'static> {
        let Some(typed) = &self.typed else {
            let [long, short] = HELP.map(|keys| Line::styled(keys, FAINT));
            return if long.width() <= width.into() { long } else { short };
        };
        let is_missing = !typed.is_empty() && self.found.is_none_or(|id| usize::from(id.get()) > agencies);
        let end = if is_missing { "   there is none" } else { "" };
        Line::raw(format!(" find agency: {typed}_{end}"))
    }
}

/// Sorts them: first those that have not ended, among these first the idle ones, then by the number of bets.
fn furthest_behind_first(agencies: &mut [&Progress<'_>]) {
    agencies.sort_by_key(|progress| {
        let is_busy = progress.rate.is_some_and(|rate| rate > 0.0);
        (progress.agency.ended, is_busy, progress.agency.bets)
    });
}
