//! The table: a line for each row, with its target.

use std::fmt::Write as _;

use crate::measure::Series;

/// The unit of a row's values.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Bets per second.
    BetsPerSecond,
    /// Seconds for each bet, shown in ns.
    SecondsPerBet,
    /// Seconds, shown in s or ms.
    Seconds,
    /// KiB.
    Memory,
}

impl Unit {
    fn format(self, value: f64) -> String {
        match self {
            Self::BetsPerSecond => format!("{:.0} k/s", value / 1e3),
            Self::SecondsPerBet => format!("{:.0} ns", value * 1e9),
            Self::Seconds if value < 0.1 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Memory if value < 1024.0 => format!("{value:.0} KiB"),
            Self::Memory => format!("{:.1} MiB", value / 1024.0),
        }
    }
}

/// The target of a row.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// None: the row is a comparison value.
    None,
    /// The median is below this.
    Below(f64),
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    name: String,
    unit: Unit,
    values: Series,
    against: Option<(&'static str, Series)>,
    goal: Goal,
}

impl Row {
    /// A row without a target.
    pub fn new(name: impl Into<String>, unit: Unit, values: &Series) -> Self {
        Self { name: name.into(), unit, values: values.clone(), against: None, goal: Goal::None }
    }

    /// A row that says why nothing was measured.
    pub fn absent(reason: &str) -> Self {
        Self::new(reason, Unit::Seconds, &Series::default())
    }

    /// Sets the target that the median is below `limit`.
    pub fn below(self, limit: f64) -> Self {
        Self { goal: Goal::Below(limit), ..self }
    }

    /// Compares it with another series of the same rounds.
    pub fn against(self, name: &'static str, other: &Series, goal: Goal) -> Self {
        Self { against: Some((name, self.values.ratio_to(other))), goal, ..self }
    }

    /// Whether the target is met; `None` without a target.
    fn is_met(&self) -> Option<bool> {
        let ratio = self.against.as_ref().map_or(f64::NAN, |(_, ratio)| ratio.median());
        match self.goal {
            Goal::None => None,
            Goal::Below(limit) => Some(self.values.median() < limit),
            Goal::RatioAtLeast(least) => Some(ratio >= least),
            Goal::RatioAtMost(most) => Some(ratio <= most),
        }
    }

    fn full_name(&self) -> String {
        match &self.against {
            Some((against, _)) => format!("{} against {against}", self.name),
            None => self.name.clone(),
        }
    }

    fn cells(&self) -> [String; 7] {
        let mut cells = <[String; 7]>::default();
        let [name, median, against, ratio, spread, target, met] = &mut cells;
        name.clone_from(&self.name);
        if self.values.is_empty() {
            return cells;
        }
        *median = self.unit.format(self.values.median());
        if let Some((other, values)) = &self.against {
            let (low, high) = values.spread();
            (*other).clone_into(against);
            *ratio = format!("{:.2}", values.median());
            *spread = format!("{low:.2} - {high:.2}");
        } else {
            let (low, high) = self.values.spread();
            *spread = format!("{} - {}", self.unit.format(low), self.unit.format(high));
        }
        *target = match self.goal {
            Goal::None => String::new(),
            Goal::Below(limit) => format!("< {}", self.unit.format(limit)),
            Goal::RatioAtLeast(least) => format!(">= {least:.2}"),
            Goal::RatioAtMost(most) => format!("<= {most:.2}"),
        };
        self.is_met().map_or("", |met| if met { "yes" } else { "NO" }).clone_into(met);
        cells
    }
}

/// The spread is that of the ratio, if there is one.
const TITLES: [&str; 7] = ["row", "median", "against", "ratio", "spread", "target", "met"];

/// The table, followed by the rows that missed their targets.
pub fn table(rows: &[Row]) -> String {
    let titles = TITLES.map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|cells| cells.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut table = String::new();
    for cells in &lines {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            // The first and the third column are text and left-aligned; the others are numbers.
            let width = width(column);
            if matches!(column, 0 | 2) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(table, "{}", padded.collect::<Vec<_>>().join("  ").trim_end()).unwrap_or_default();
    }
    let missed: Vec<String> =
        rows.iter().filter(|row| row.is_met() == Some(false)).map(Row::full_name).collect();
    let summary = if missed.is_empty() {
        "all targets are met".to_owned()
    } else {
        format!("missed: {}", missed.join("; "))
    };
    table + "\n" + &summary + "\n"
}
