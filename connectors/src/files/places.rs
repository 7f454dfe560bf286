//! Tells whether a directory has to do with the places where files are looked for.

use std::path::Path;

use glob::Pattern;
use highwater_engine::places::{is_hidden, resolved};

use super::listing::Step;

/// Where files are looked for.
pub(super) struct Places {
    pub(super) bases: Vec<String>,
    /// The steps below each of them, if there are patterns.
    pub(super) patterns: Vec<Vec<Step>>,
    /// Directories below are looked into, whatever they are called.
    pub(super) recursive: bool,
    /// What files must be called.
    pub(super) filter: Option<Vec<Pattern>>,
}

impl Places {
    /// Whether `path`, as far as it goes, is a place where files are looked for, or may lead to one.
    pub(super) fn meets(&self, path: &Path) -> bool {
        self.compare(path, |_, _| true)
    }

    /// Whether a listing comes across files that are in directory `path` and have `names`, or in directories below it.
    pub(super) fn holds(&self, path: &Path, names: &[&str]) -> bool {
        let wanted = |name: &&str| match &self.filter {
            None => true,
            Some(filter) => filter.iter().any(|pattern| pattern.matches(name)),
        };
        names.iter().any(wanted)
            && self.compare(path, |steps, behind| {
                let Some(below) = behind.and_then(|names| names.get(steps..)) else {
                    return false;
                };
                // Whatever is below a directory that tells a value is looked into too.
                let entered = below.first().is_none_or(|first| first.contains('='));
                let hidden = behind.is_some_and(|names| names.iter().any(|name| is_hidden(name)));
                (entered || self.recursive) && !hidden
            })
    }

    /// Whether `path` agrees with one of the places as far as both go, and `suits`, told how many steps there are below
    /// it, and the names of the path below it if it goes so far.
    fn compare(&self, path: &Path, suits: impl Fn(usize, Option<&[&str]>) -> bool) -> bool {
        let path = resolved(path);
        let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
        let names = names.strip_prefix(&["/"]).unwrap_or(&names);
        self.bases.iter().enumerate().any(|(at, base)| {
            let base = resolved(Path::new(base));
            let base: Vec<&str> = base.iter().filter_map(|name| name.to_str()).collect();
            let base = base.strip_prefix(&["/"]).unwrap_or(&base);
            let agree = base.iter().zip(names).all(|(base, name)| base == name);
            let steps = self.patterns.get(at).map_or(&[][..], Vec::as_slice);
            let behind = names.get(base.len()..);
            agree
                && steps
                    .iter()
                    .zip(behind.unwrap_or_default())
                    .all(|(step, name)| match step {
                        Step::Name(step) => step == name,
                        Step::Wild(step) => step.matches(name),
                    })
                && suits(steps.len(), behind)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::listing::Lister;
    use super::super::options::FileOptions;

    #[test]
    fn what_is_in_below_or_around_a_place_meets_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/a")).unwrap();
        let places = |path: &str| {
            let path = dir.path().join(path);
            let lister = Lister::new(path.to_str().unwrap(), &FileOptions::default());
            lister.unwrap().places()
        };
        let meets = |path: &str, other: &str| places(path).meets(&dir.path().join(other));
        for (other, expected) in [
            ("in", true),
            ("in/", true),
            ("in/x/y", true),
            ("", true),
            ("out", false),
            ("in2", false),
        ] {
            assert_eq!(meets("in", other), expected, "{other}");
        }
        assert!(meets("in/*/b", "in/x/b"));
        assert!(meets("in/*/b", "in/x"));
        assert!(!meets("in/*/b", "in/x/c"));
        let holds = |path: &str, options: &FileOptions, other: &str| {
            let path = dir.path().join(path);
            let lister = Lister::new(path.to_str().unwrap(), options).unwrap();
            let places = lister.places();
            places.holds(&dir.path().join(other), &["metadata", "7"])
        };
        let plain = FileOptions::default();
        let all_depths = FileOptions {
            recursive: true,
            ..FileOptions::default()
        };
        for (other, at_any_depth, told) in [
            ("in", true, true),
            ("in/x/y", true, false),
            ("in/p=1/y", true, true),
            ("in/_x/y", false, false),
            ("in/x/.y", false, false),
            ("", false, false),
            ("out", false, false),
        ] {
            assert_eq!(holds("in", &all_depths, other), at_any_depth, "{other}");
            assert_eq!(holds("in", &plain, other), told, "{other}");
        }
        assert!(holds("in/*", &plain, "in/x") && !holds("in/*", &plain, "in/x/y"));
        assert!(!holds("in/*.json", &plain, "in/x") && !holds("in/*/b", &plain, "in/x"));
        for (filter, expected) in [("*.json", false), ("?", true), ("meta*", true)] {
            let options = FileOptions {
                path_glob_filter: Some(vec![glob::Pattern::new(filter).unwrap()]),
                ..FileOptions::default()
            };
            assert_eq!(holds("in", &options, "in"), expected, "{filter}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("link")).unwrap();
            assert!(meets("in", "link/x"));
            assert!(meets("link", "in/x"));
        }
    }
}
