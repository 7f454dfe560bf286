//! Tells whether a directory has to do with the places where files are looked for.

use std::path::{Path, PathBuf};

use super::listing::Step;

/// Where files are looked for.
pub(super) struct Places {
    pub(super) bases: Vec<String>,
    /// The steps below each of them, if there are patterns.
    pub(super) patterns: Vec<Vec<Step>>,
}

impl Places {
    /// Whether `path`, as far as it goes, is a place where files are looked for, or may lead to one.
    pub(super) fn meets(&self, path: &Path) -> bool {
        let path = resolved(path);
        let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
        let names = names.strip_prefix(&["/"]).unwrap_or(&names);
        self.bases.iter().enumerate().any(|(at, base)| {
            let base = resolved(Path::new(base));
            let base: Vec<&str> = base.iter().filter_map(|name| name.to_str()).collect();
            let base = base.strip_prefix(&["/"]).unwrap_or(&base);
            let agree = base.iter().zip(names).all(|(base, name)| base == name);
            let steps = self.patterns.get(at).into_iter().flatten();
            let behind = names.iter().skip(base.len());
            agree
                && steps.zip(behind).all(|(step, name)| match step {
                    Step::Name(step) => step == name,
                    Step::Wild(step) => step.matches(name),
                })
        })
    }
}

/// A path without links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            return found.join(rest);
        }
    }
    path.into()
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
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("link")).unwrap();
            assert!(meets("in", "link/x"));
            assert!(meets("link", "in/x"));
        }
    }
}
