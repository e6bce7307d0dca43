//! The architecture: the modules of `src` form layers, each uses only lower layers, and no files import each other in a
//! circle. The pages: each test, module and function that they name exists, and each link has a target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the lowest to the highest. Modules of one layer do not use each other.
const LAYERS: [&[&str]; 11] = [
    // The domain, and the format of log lines.
    &["lottery", "logging"],
    // Safe wrappers of the operating system.
    &["system"],
    // The wire. It uses only a type of `system` and makes no system call.
    &["protocol"],
    // Failpoints for tests.
    &["failpoint"],
    // The channels between the server's processes, the settings, TLS for clients, and files that the program generates.
    &["ipc", "config", "tls", "sample", "compose"],
    // Makes the files that TLS reads.
    &["certs"],
    // Asking a server for its status and showing it.
    &["status"],
    // The two sides of a connection.
    &["server", "agency"],
    // Reads what the server has written.
    &["audit"],
    // Runs server and agencies as processes, and audits what they have written.
    &["demo"],
    // The command line.
    &["cli"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a module: `name.rs` and all files in the folder `name`.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(module).with_extension("rs")];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.is_file());
    files
}

/// The modules that a source names by `crate::` in code. Names in comments do not count.
fn used_by(source: &str) -> BTreeSet<String> {
    let code =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => used.extend(heads(group)),
            None => used.extend(name(rest)),
        }
    }
    used
}

/// The first name of each path of a group such as `{a, b::{c, d}}`. `group` begins behind the first brace.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut found: Vec<_> = name(group.trim_start()).into_iter().collect();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.extend(name(group.split_at(at + 1).1.trim_start())),
            _ => (),
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn name(path: &str) -> Option<String> {
    let end =
        path.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end).0.to_owned())
}

#[test]
fn each_module_uses_only_modules_of_lower_layers() {
    let mut below: BTreeSet<String> = BTreeSet::new();
    for layer in LAYERS {
        for &module in layer {
            for file in files_of(module) {
                for used in used_by(&fs::read_to_string(&file).unwrap()) {
                    let file = file.display();
                    assert!(used == module || below.contains(&used), "{file}: `{module}` uses `{used}`");
                }
            }
        }
        below.extend(layer.iter().map(|&module| module.to_owned()));
    }
}

#[test]
fn each_module_is_in_a_layer() {
    let library = fs::read_to_string(source().join("lib.rs")).unwrap();
    let modules: BTreeSet<_> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(modules, LAYERS.into_iter().flatten().copied().collect());
    for module in modules {
        assert!(!files_of(module).is_empty(), "{module}");
    }
}

#[test]
fn a_use_is_found_in_each_form() {
    let source = "
        //! [`crate::comment`]
        use crate::one::{Two, three};
        pub use crate::{
            four, // crate::comment
            five::{Six, seven},
            eight,
        };
        fn run() { crate::nine::run(); }
    ";
    assert_eq!(used_by(source).into_iter().collect::<Vec<_>>(), ["eight", "five", "four", "nine", "one"]);
}

/// A file's module path, such as `server::storage::disk`. The path of `lib.rs` is empty.
fn module_of(file: &Path) -> String {
    let path = file.strip_prefix(source()).unwrap().with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).collect();
    let names = match names.as_slice() {
        ["lib"] => &[],
        [folders @ .., "mod"] => folders,
        all => all,
    };
    names.join("::")
}

/// The code of a file without its comments and without its unit tests, which may use everything.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let (code, _tests) = text.split_once("#[cfg(test)]\nmod ").unwrap_or((&text, ""));
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// All paths that begin with `start`. In `a::{b, c::{d}}` these are `a::b` and `a::c::d`.
fn paths_from(start: &str, code: &str) -> Vec<String> {
    let is_start = |at: usize| {
        !code.split_at(at).0.ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before))
    };
    let places = code.match_indices(start).filter(|(at, _)| is_start(*at));
    places.flat_map(|(at, _)| expand(code.split_at(at).1).0).collect()
}

/// The paths of one tree of `use`, and the length of the tree in bytes.
fn expand(tree: &str) -> (Vec<String>, usize) {
    let mut taken = tree.len() - tree.trim_start().len();
    let mut path = Vec::new();
    loop {
        let rest = tree.split_at(taken).1;
        if rest.starts_with('{') {
            let mut found = Vec::new();
            taken += 1;
            while !tree.split_at(taken).1.trim_start().starts_with('}') && taken < tree.len() {
                let (inner, length) = expand(tree.split_at(taken).1);
                taken += length;
                found.extend(inner.into_iter().map(|inner| format!("{}::{inner}", path.join("::"))));
                let rest = tree.split_at(taken).1;
                taken += rest
                    .find([',', '}'])
                    .map_or(rest.len(), |at| at + usize::from(rest.as_bytes()[at] == b','));
            }
            return (found, taken + 1);
        }
        let Some(name) = name(rest) else { return (vec![path.join("::")], taken) };
        taken += name.len();
        path.push(name);
        if !tree.split_at(taken).1.starts_with("::") {
            return (vec![path.join("::")], taken);
        }
        taken += 2;
    }
}

/// The files whose names this one uses, as module paths. A parent that only declares a module does not use it.
fn imports_of(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let mut paths: Vec<String> = paths_from("crate::", code);
    paths.extend(["super::", "self::"].iter().flat_map(|start| paths_from(start, code)));
    let children =
        modules.iter().filter(|other| other.rsplit_once("::").map_or("", |(parent, _)| parent) == module);
    for child in children {
        let name = child.rsplit("::").next().unwrap();
        paths.extend(paths_from(&format!("{name}::"), code).iter().map(|path| format!("self::{path}")));
    }
    let mut found: BTreeSet<_> = paths.iter().filter_map(|path| file_of(module, path, modules)).collect();
    found.remove(module);
    found
}

/// The module whose file contains the item of this path.
fn file_of(module: &str, path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut here: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    let mut names = path.split("::").peekable();
    while let Some(step) = names.next_if(|name| ["crate", "super", "self"].contains(name)) {
        match step {
            "crate" => here.clear(),
            "super" => drop(here.pop()),
            _ => (),
        }
    }
    for name in names {
        let deeper = here.iter().copied().chain([name]).collect::<Vec<_>>();
        if !modules.contains(&deeper.join("::")) {
            break;
        }
        here = deeper;
    }
    modules.contains(&here.join("::")).then(|| here.join("::"))
}

/// All files that a file imports, directly or through others.
fn reached_from(module: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![module.to_owned()];
    while let Some(module) = next.pop() {
        next.extend(imports[&module].iter().filter(|used| reached.insert((*used).clone())).cloned());
    }
    reached
}

#[test]
fn no_file_imports_itself_through_others() {
    let mut files: Vec<_> = LAYERS.into_iter().flatten().flat_map(|&module| files_of(module)).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "rs"));
    let modules: BTreeSet<_> = files.iter().map(|file| module_of(file)).collect();
    let imports: BTreeMap<_, _> = files
        .iter()
        .map(|file| (module_of(file), imports_of(&module_of(file), &code_of(file), &modules)))
        .collect();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 200, "are imports still found? {imports:?}");
    let circles: Vec<_> =
        imports.keys().filter(|module| reached_from(module, &imports).contains(*module)).collect();
    assert!(circles.is_empty(), "each of these files imports itself through others: {circles:#?}");
}

#[test]
fn an_import_is_resolved_to_its_file() {
    let modules = ["a", "a::b", "a::c", "d", "d::e"].map(str::to_owned).into_iter().collect();
    let code =
        "use super::c::{self, One};\nuse crate::{a::Two, d::{e::Three, Four}};\nfn f() { super::five() }";
    let imports = imports_of("a::b", code, &modules);
    assert_eq!(imports.into_iter().collect::<Vec<_>>(), ["a", "a::c", "d", "d::e"]);
    let imports = imports_of("a", "mod b;\nmod c;\nfn f() { c::six() }", &modules);
    assert_eq!(imports.into_iter().collect::<Vec<_>>(), ["a::c"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The text of all Rust files below a folder.
fn rust_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true => rust_below(&path),
        false if path.extension().is_some_and(|ending| ending == "rs") => fs::read_to_string(path).unwrap(),
        false => String::new(),
    };
    entries.map(text).collect()
}

#[test]
fn every_test_that_the_design_names_for_a_promise_exists() {
    let design = read("docs/design.md");
    let (_, durability) = design.split_once("| event | what holds | tests |\n|---|---|---|\n").unwrap();
    let rows = durability.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names: Vec<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "{} tests are named: are they still found?", names.len());
    let tests = rust_below(&root().join("tests")) + &rust_below(&source());
    for name in names {
        let exists = [format!("fn {name}("), format!("    {name}: ")].iter().any(|form| tests.contains(form));
        assert!(exists, "docs/design.md names the test `{name}`");
    }
}

/// The rows of a file's documentation tables.
fn doc_rows(file: &str) -> impl Iterator<Item = &str> {
    file.lines().filter_map(|line| line.strip_prefix("//! | "))
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_module_function_and_file_that_the_crate_documentation_names_exists() {
    let page = read("src/lib.rs");
    let sources = rust_below(&source());
    let names: Vec<_> = doc_rows(&page).flat_map(quoted).collect();
    assert!(names.len() > 30, "{} names are found", names.len());
    for name in names {
        let exists = match name.strip_suffix("()") {
            Some(function) => sources.contains(&format!("fn {function}")),
            None if name.contains('.') => root().join(name).is_file(),
            None => !files_of(&name.replace("::", "/")).is_empty(),
        };
        assert!(exists, "src/lib.rs names `{name}`");
    }
}

#[test]
fn every_file_in_the_table_of_a_module_exists() {
    let modules = files_of("").into_iter().filter(|file| file.ends_with("mod.rs"));
    let mut found = 0;
    for file in modules {
        let text = fs::read_to_string(&file).unwrap();
        let rows = doc_rows(&text).skip_while(|row| !row.starts_with("file |"));
        for name in rows.filter_map(|row| row.split(" | ").next()).flat_map(quoted) {
            found += 1;
            let module = file.with_file_name(name);
            assert!(module.is_dir() || module.with_extension("rs").is_file(), "{file:?} names `{name}`");
        }
    }
    assert!(found > 20, "{found} files are named");
}

const PAGES: [&str; 8] = [
    "README.md",
    "CONTRIBUTING.md",
    "benches/README.md",
    "docs/containers.md",
    "docs/design.md",
    "docs/operations.md",
    "docs/protocol.md",
    "docs/tls.md",
];

/// The targets of a page's links: the path, and the heading after `#`.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://"));
    local.map(|target| target.split_once('#').unwrap_or((target, "")))
}

/// The name of a heading in links.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_the_pages_has_a_target() {
    for page in PAGES {
        let text = read(page);
        for (path, heading) in links(&text) {
            let target = if path.is_empty() {
                root().join(page)
            } else {
                root().join(page).parent().unwrap().join(path)
            };
            assert!(target.exists(), "{page}: {path}");
            let headings = || {
                fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            assert!(heading.is_empty() || headings(), "{page}: {path}#{heading}");
        }
    }
}
