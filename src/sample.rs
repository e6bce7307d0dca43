//! `loteria sample`: writes files of made-up bets. The same seed gives the same bytes.
//!
//! `tests/data/agency-1.csv` to `agency-5.csv` are what
//! `loteria sample --agencies 5 --bets 9000,6000,3500,1500,0 --dir tests/data` writes.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate};
use csv::{Terminator, WriterBuilder};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use thiserror::Error;

use crate::lottery::AgencyId;

/// The seed where none is given.
pub const DEFAULT_SEED: u64 = 7574;
/// The default winning number. More bets are on it than on others.
pub(crate) const WINNING_NUMBER: u32 = 7574;
/// On average one of this many bets is on the winning number.
const BETS_PER_WINNER: u32 = 1000;
/// Numbers are below this.
const NUMBERS: u32 = 10_000;
/// An agency with at least this many bets has a winner.
const ENOUGH_FOR_A_WINNER: u64 = 5;

#[rustfmt::skip]
const FIRST_NAMES: [&str; 40] = [
    "Santiago", "Agustín", "Sofía", "Martín", "Lucía", "Joaquín", "Valentina", "Tomás", "Camila", "Nicolás",
    "Julieta", "Matías", "Florencia", "Facundo", "Rocío", "Gastón", "Milagros", "Ramón", "Inés", "Hernán",
    "María José", "Juan Ignacio", "Belén", "Germán", "Zoé", "Ignacio", "Carolina", "Ezequiel", "Mónica",
    "Raúl", "Graciela", "Osvaldo", "Nélida", "Héctor", "Yésica", "Brian", "Micaela", "Iñaki", "Noemí",
    "Ulises",
];

#[rustfmt::skip]
const LAST_NAMES: [&str; 40] = [
    "González", "Rodríguez", "Gómez", "Fernández", "López", "Díaz", "Martínez", "Pérez", "Romero",
    "Sánchez", "García", "Sosa", "Benítez", "Ramírez", "Torres", "Ruiz", "Flores", "Álvarez", "Acosta",
    "Medina", "Núñez", "Peralta", "Ibáñez", "Muñoz", "Agüero", "Güiraldes", "Echeverría", "Lorca",
    "Quiroga", "Zárate", "Bianchi", "D'Angelo", "Di Stéfano", "Peña", "Ortíz", "Vázquez", "Yáñez", "Ojeda",
    "Uñates", "Saavedra Lamas",
];

const NICKNAMES: [&str; 12] = [
    "Coco", "Pocha", "El Tano", "La Negra", "Pipa", "Cacho", "Beba", "Tito", "Chiqui", "Ñato", "Lalo", "Mumi",
];

const SUFFIXES: [&str; 4] = [", hijo", ", viuda de Paz", ", Jr.", ", \"h\""];

/// Why the files cannot be written.
#[derive(Debug, Error)]
pub enum SampleError {
    /// There are this many agencies, but that many amounts.
    #[error("--bets must be one number, or one for each of the {0} agencies, not {1}")]
    Amounts(u16, usize),
    /// This file or folder cannot be written.
    #[error("{path}: {1}", path = .0.display())]
    Write(PathBuf, io::Error),
}

/// Writes `agency-1.csv` to `agency-N.csv` into a folder, which is made if it is missing.
///
/// # Errors
/// `bets` is neither one number nor one for each agency, or a file cannot be written.
pub fn write(agencies: u16, bets: &[u64], seed: u64, folder: &Path) -> Result<(), SampleError> {
    let amounts = match bets {
        [same] => vec![*same; agencies.into()],
        each if each.len() == usize::from(agencies) => each.to_vec(),
        _ => return Err(SampleError::Amounts(agencies, bets.len())),
    };
    let at = |path: &Path, error| SampleError::Write(path.to_owned(), error);
    fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    let mut first_document = 0;
    for (agency, bets) in (1..=agencies).filter_map(AgencyId::new).zip(amounts) {
        let path = folder.join(file_name(agency));
        let rows = rows(Dice::new(seed, agency), first_document..first_document + bets);
        write_file(&path, rows).map_err(|error| at(&path, error))?;
        first_document += bets;
    }
    Ok(())
}

/// Returns the name of an agency's file.
#[must_use]
pub fn file_name(agency: AgencyId) -> String {
    format!("agency-{agency}.csv")
}

fn write_file(path: &Path, rows: impl Iterator<Item = [String; 5]>) -> io::Result<()> {
    let mut file = WriterBuilder::new().terminator(Terminator::CRLF).from_path(path)?;
    for row in rows {
        file.write_record(row)?;
    }
    file.flush()
}

/// Makes the rows of one agency, whose documents have these indices among all documents.
fn rows(mut dice: Dice, documents: Range<u64>) -> impl Iterator<Item = [String; 5]> {
    let bets = documents.end - documents.start;
    let from_last = dice.below(u32::try_from(bets).unwrap_or(u32::MAX));
    let sure_winner = (bets >= ENOUGH_FOR_A_WINNER).then(|| documents.end - 1 - u64::from(from_last));
    documents.map(move |index| {
        let number = dice.below(NUMBERS);
        let wins = dice.below(BETS_PER_WINNER) == 0 || sure_winner == Some(index);
        let number = if wins { WINNING_NUMBER } else { number }.to_string();
        [dice.first_name(), dice.last_name(), document(index).to_string(), dice.birthdate(), number]
    })
}

/// Returns a unique document. Documents are a permutation of a range of numbers, so that they do not look like a sequence.
fn document(index: u64) -> u64 {
    const LOWEST: u64 = 5_000_000;
    const HOW_MANY: u64 = 43_000_000;
    // Coprime to HOW_MANY, so that every index gets a number of its own.
    const STRIDE: u64 = 15_485_863;
    let round = index / HOW_MANY;
    LOWEST + round * HOW_MANY + index % HOW_MANY * STRIDE % HOW_MANY
}

/// Random numbers that are the same with every version of `rand_chacha`, because the generator is specified.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64, agency: AgencyId) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        let mut generator = ChaCha8Rng::from_seed(bytes);
        generator.set_stream(agency.get().into());
        Self(generator)
    }

    /// Returns a number from 0 to `limit` - 1; 0 for a limit of 0.
    fn below(&mut self, limit: u32) -> u32 {
        let scaled = u64::from(self.0.next_u32()) * u64::from(limit);
        u32::try_from(scaled >> u32::BITS).unwrap_or(0)
    }

    fn one_of<'a>(&mut self, names: &[&'a str]) -> &'a str {
        let limit = u32::try_from(names.len()).unwrap_or(u32::MAX);
        names.get(self.below(limit) as usize).copied().unwrap_or_default()
    }

    fn first_name(&mut self) -> String {
        let name = self.one_of(&FIRST_NAMES);
        match self.below(40) {
            0 => format!("{name} \"{}\"", self.one_of(&NICKNAMES)),
            1..=12 => format!("{name} {}", self.one_of(&FIRST_NAMES)),
            _ => name.to_owned(),
        }
    }

    fn last_name(&mut self) -> String {
        let name = self.one_of(&LAST_NAMES);
        match self.below(50) {
            0 => format!("{name}{}", self.one_of(&SUFFIXES)),
            1..=8 => format!("{name} {}", self.one_of(&LAST_NAMES)),
            _ => name.to_owned(),
        }
    }

    /// Returns a day from 1930-01-01 to 2005-12-31.
    fn birthdate(&mut self) -> String {
        let days = Days::new(self.below(27_759).into());
        let first = NaiveDate::from_ymd_opt(1930, 1, 1).unwrap_or_default();
        first.checked_add_days(days).unwrap_or(first).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn bets(seed: u64, agency: u16, count: u64) -> Vec<[String; 5]> {
        rows(Dice::new(seed, AgencyId::new(agency).unwrap()), 0..count).collect()
    }

    #[test]
    fn another_seed_or_agency_gives_other_bets() {
        assert_ne!(bets(1, 1, 50), bets(2, 1, 50));
        assert_ne!(bets(1, 1, 50), bets(1, 2, 50));
    }

    #[test]
    fn there_are_winners_and_names_that_need_quotes() {
        assert!((1..30).all(|agency| bets(3, agency, 5).iter().any(|bet| bet[4] == "7574")));
        let many = bets(3, 1, 20_000);
        let winners = many.iter().filter(|bet| bet[4] == "7574").count();
        assert!((10..50).contains(&winners), "{winners}");
        for special in ['"', ',', 'ñ', '\''] {
            assert!(many.iter().any(|bet| bet[..2].concat().contains(special)), "{special}");
        }
    }

    #[test]
    fn documents_are_unique() {
        let documents: HashSet<u64> = (0..100_000).chain(42_999_900..43_000_100).map(document).collect();
        assert_eq!(documents.len(), 100_200);
    }
}
