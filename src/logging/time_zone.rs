//! Whether `TZ` names a time zone. If it does not, chrono would write all times in UTC and not say so.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Where chrono looks for the file of a zone.
const FOLDERS: [&str; 4] =
    ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/share/lib/zoneinfo"];
/// The values of `TZ` that are allowed.
pub(crate) const ALLOWED: &str =
    "a zone that has a file in /usr/share/zoneinfo, such as America/Lima, or a rule such as <-05>5";

/// Whether a value of `TZ` names a time zone.
pub(crate) fn is_known(zone: &str) -> bool {
    match zone.strip_prefix(':') {
        _ if zone.is_empty() => true,
        _ if zone == "localtime" => has_file("/etc/localtime"),
        Some(name) => has_file(name),
        None => has_file(zone) || is_rule(zone),
    }
}

fn has_file(name: &str) -> bool {
    FOLDERS.into_iter().any(|folder| {
        let mut start = [0; 4];
        // `join` returns a name that is an absolute path unchanged.
        let file = File::open(Path::new(folder).join(name));
        file.and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"TZif"
    })
}

/// Whether this is a rule of POSIX, such as `<-03>3` or `CET-1CEST,M3.5.0,M10.5.0/3`.
fn is_rule(text: &str) -> bool {
    let Some(rest) = after_name(text).and_then(after_offset) else { return false };
    // For summer time, a name follows, perhaps an offset, and then when it begins and ends.
    let summer = after_name(rest).map(|rest| after_offset(rest).unwrap_or(rest));
    rest.is_empty() || summer.is_some_and(|rest| rest.starts_with(','))
}

fn after_name(text: &str) -> Option<&str> {
    let (name, rest) = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?,
        None => text.split_at(text.find(|c: char| !c.is_ascii_alphabetic())?),
    };
    (3..=7).contains(&name.len()).then_some(rest)
}

fn after_offset(text: &str) -> Option<&str> {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(text.len());
    let (offset, rest) = text.split_at(end);
    let hours: u8 = offset.split(':').next()?.parse().ok()?;
    (hours <= 24).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_from_names_of_zones_that_do_not_exist() {
        let rules = "<-03>3 UTC0 XYZ+5:30 CET-1CEST,M3.5.0,M10.5.0/3 <+1030>-10:30<+11>-11,M10.1.0,M4.1.0";
        let others = "Nowhere/City -03 Argentina Argentina3 AB3 ABC25 ABC1DEF <-03 <-03> :<-03>3";
        assert_eq!(rules.split(' ').find(|rule| !is_known(rule)), None);
        assert_eq!(others.split(' ').find(|name| is_known(name)), None);
    }
}
