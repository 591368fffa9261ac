//! Symbolic links that travel as links: those of a checkpoint that lead to files of the same checkpoint.
//!
//! A trainer renews such a link (`last -> checkpoint-3`) by removing it, which fails on a folder. Whoever
//! sends the checkpoint may be hostile, so its receiver checks the list by itself: a link leads to what is in
//! the list, and nothing in the list is reached through a link.

use super::entry::{BundleEntry, EntryKind, EntryPath};
use super::patterns::{Pattern, real_path};
use super::refusal::refused;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Result};

/// How many links in a row are followed: as many as the kernel follows.
const LINKS_IN_A_ROW_LIMIT: usize = 40;
/// How many files behind one link are looked at: a list of many links to a large folder would
/// take hours.
const SEEN_FILES_LIMIT: usize = 1000;

/// The files under `root` that any of `patterns` matches, and links where these lead to files that are found
/// by their own paths. Any other link counts as what it points to, as in [`super::find`].
///
/// # Errors
/// A pattern that leads out of `root`, or a folder that cannot be read.
pub fn find_with_links(root: &Path, patterns: &[String]) -> Result<Vec<BundleEntry>> {
    let root = &root.canonicalize().with_context(|| format!("cannot look into {}", root.display()))?;
    let mut found = BTreeMap::new();
    let mut links = BTreeSet::new();
    for pattern in patterns {
        let search = Pattern::parse(pattern)?.search(root)?;
        found.extend(search.files.into_iter().map(|(path, entry)| (path, entry.kind)));
        links.extend(search.links);
    }
    let mut kept: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for link in links {
        let below_another = link.ancestors().skip(1).any(|above| kept.contains_key(above));
        let Some(real) = real_path(root, &link).filter(|_| !below_another) else { continue };
        let is_found =
            |path: &Path| found.contains_key(path) || path.ancestors().any(|it| kept.contains_key(it));
        if leads_to_found(&found, is_found, &link, &real) {
            let copies: Vec<PathBuf> = at_or_below(&found, &link).cloned().collect();
            for copy in &copies {
                found.remove(copy);
            }
            found.insert(link.clone(), EntryKind::Link { target: EntryPath::from(real.as_path()) });
            kept.insert(link, real);
        }
    }
    // Only now is it known which links a link may lead through.
    for (link, real) in kept {
        let target = EntryPath::from(target(root, &found, &link, &real).as_path());
        found.insert(link, EntryKind::Link { target });
    }
    Ok(found
        .into_iter()
        .map(|(path, kind)| BundleEntry { path: EntryPath::from(path.as_path()), kind })
        .collect())
}

/// Whether all that was found by way of a link was also found at `real`, where the link leads.
fn leads_to_found(
    found: &BTreeMap<PathBuf, EntryKind>,
    is_found: impl Fn(&Path) -> bool,
    link: &Path,
    real: &Path,
) -> bool {
    if link.starts_with(real) {
        // A folder that holds the link: copies of it would never end.
        return at_or_below(found, real).next().is_some();
    }
    let mut copies = at_or_below(found, link).peekable();
    copies.peek().is_some()
        && copies.all(|copy| {
            let rest = copy.strip_prefix(link).unwrap_or(copy);
            let own = if rest.as_os_str().is_empty() { real.to_owned() } else { real.join(rest) };
            own != *copy && is_found(&own)
        })
}

/// What the link says, if that leads to `real` by way of found files and links alone; or else the shortest
/// way there.
fn target(root: &Path, found: &BTreeMap<PathBuf, EntryKind>, link: &Path, to: &Path) -> PathBuf {
    let says = root.join(link).read_link().ok();
    let leads = |says: &PathBuf| {
        lexical_target(link, says).is_some_and(|place| {
            at_or_below(found, &place).next().is_some() && real_path(root, &place).as_deref() == Some(to)
        })
    };
    says.filter(leads).unwrap_or_else(|| {
        let from = link.parent().unwrap_or(Path::new(""));
        let shared = from.iter().zip(to.iter()).take_while(|(one, other)| one == other).count();
        let up = std::iter::repeat_n(Path::new(".."), from.iter().count() - shared);
        let way: PathBuf = up.chain(to.iter().skip(shared).map(Path::new)).collect();
        if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
    })
}

fn at_or_below<'a, K: Borrow<Path> + Ord, V>(
    found: &'a BTreeMap<K, V>,
    path: &'a Path,
) -> impl Iterator<Item = &'a K> {
    let from = (Bound::Included(path), Bound::Unbounded);
    let found = found.range::<Path, _>(from).map(|(found, _)| found);
    found.take_while(move |found| (*found).borrow().starts_with(path))
}

/// Where a relative link leads, by names alone, below the folder that holds everything. None for a target
/// that is not below it, or that goes up after it went down: where that leads depends on what the names are.
fn lexical_target(link: &Path, target: &Path) -> Option<PathBuf> {
    let mut place = link.parent().filter(|_| !target.as_os_str().is_empty())?.to_owned();
    let mut went_down = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !went_down && place.pop() => {}
            Component::Normal(name) if !name.eq_ignore_ascii_case(".git") => {
                place.push(name);
                went_down = true;
            }
            _ => return None,
        }
    }
    Some(place)
}

/// The entries of a list by their paths.
pub(super) struct EntryIndex<'a>(BTreeMap<&'a Path, &'a BundleEntry>);

impl<'a> EntryIndex<'a> {
    pub(super) fn new(entries: &'a [BundleEntry]) -> Self {
        Self(entries.iter().map(|entry| (entry.path.as_path(), entry)).collect())
    }

    fn is_link(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|entry| matches!(entry.kind, EntryKind::Link { .. }))
    }

    /// The paths below a link at which files of the list are reached through that link, at most
    /// [`SEEN_FILES_LIMIT`]; none if the entry is no link.
    pub(super) fn seen_through(&self, entry: &BundleEntry) -> Vec<PathBuf> {
        let link = entry.path.as_path();
        let Some(place) = self.final_target(entry) else { return Vec::new() };
        let below = at_or_below(&self.0, &place).filter_map(|path| path.strip_prefix(&place).ok());
        below.take(SEEN_FILES_LIMIT).map(|rest| link.join(rest)).collect()
    }

    /// Where a link leads in the end, by way of other links of the list.
    fn final_target(&self, entry: &BundleEntry) -> Option<PathBuf> {
        let (mut entry, mut place) = (entry, None);
        for _ in 0..LINKS_IN_A_ROW_LIMIT {
            let EntryKind::Link { target } = &entry.kind else { break };
            let next = lexical_target(entry.path.as_path(), target.as_path())?;
            entry = match self.0.get(next.as_path()) {
                Some(entry) => entry,
                None => return Some(next),
            };
            place = Some(next);
        }
        place
    }
}

/// Refuses a list with a link that leads to anything but its own files, or with a path through a link.
pub(super) fn check(entries: &[BundleEntry]) -> Result<()> {
    let listed = EntryIndex::new(entries);
    for (path, entry) in &listed.0 {
        let plain: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if plain.as_os_str() != path.as_os_str()
            || path.ancestors().skip(1).any(|above| listed.is_link(above))
        {
            return Err(refused(format!("refused to write '{}': its path leads through a link", entry.path)));
        }
        let EntryKind::Link { target } = &entry.kind else { continue };
        let place = lexical_target(path, target.as_path());
        if place.is_none_or(|place| at_or_below(&listed.0, &place).next().is_none()) {
            return Err(refused(format!(
                "refused to make the link '{}': '{target}' is not one of the files that come with it",
                entry.path
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// What is found in a workspace of these files and links, each link with its target.
    fn found(files: &[&str], links: &[(&str, &str)], patterns: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("work");
        for path in files {
            fs::create_dir_all(work.join(path).parent().unwrap()).unwrap();
            fs::write(work.join(path), path).unwrap();
        }
        for (link, target) in links {
            let target = target.replace("$WORK", work.to_str().unwrap());
            symlink(target, work.join(link)).unwrap();
        }
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let entries = find_with_links(&work, &patterns).unwrap();
        check(&entries).unwrap();
        let show = |entry: &BundleEntry| match &entry.kind {
            EntryKind::File { .. } => entry.path.to_string(),
            EntryKind::Link { target } => format!("{} -> {target}", entry.path),
        };
        entries.iter().map(show).collect()
    }

    const FILES: [&str; 3] = ["ckpt/checkpoint-3/a.pt", "ckpt/checkpoint-3/b.pt", "ckpt/state.pt"];

    #[test]
    fn a_link_to_a_folder_that_holds_a_linked_folder_stays_a_link() {
        let files = [&FILES[..], &["ckpt/base/c.pt"]].concat();
        let links =
            [("ckpt/checkpoint-3/base", "../base"), ("ckpt/last", "checkpoint-3"), ("ckpt/again", "last")];
        let found = found(&files, &links, &["ckpt"]);
        for link in ["ckpt/checkpoint-3/base -> ../base", "ckpt/last -> checkpoint-3", "ckpt/again -> last"] {
            assert!(found.contains(&link.to_owned()), "{link}: {found:?}");
        }
        assert_eq!(found.len(), files.len() + links.len());
    }

    #[test]
    fn links_to_files_of_the_checkpoint_stay_links() {
        let links = [
            ("ckpt/last", "checkpoint-3"),
            ("ckpt/absolute", "$WORK/ckpt/checkpoint-3"),
            ("ckpt/chain", "last"),
            ("ckpt/latest.pt", "./state.pt"),
            ("ckpt/checkpoint-3/up.pt", "../state.pt"),
            ("ckpt/round", "../ckpt/state.pt"),
            ("ckpt/detour.pt", "checkpoint-3/../state.pt"),
        ];
        let expected = [
            "ckpt/absolute -> checkpoint-3",
            "ckpt/chain -> last",
            "ckpt/checkpoint-3/a.pt",
            "ckpt/checkpoint-3/b.pt",
            "ckpt/checkpoint-3/up.pt -> ../state.pt",
            "ckpt/detour.pt -> state.pt",
            "ckpt/last -> checkpoint-3",
            "ckpt/latest.pt -> ./state.pt",
            "ckpt/round -> ../ckpt/state.pt",
            "ckpt/state.pt",
        ];
        assert_eq!(found(&FILES, &links, &["ckpt"]), expected);
        assert_eq!(found(&FILES, &links, &["ckpt/**"]), expected);
        assert_eq!(found(&FILES, &links, &["ckpt/*"]), expected);
    }

    #[test]
    fn links_to_anything_else_are_what_they_lead_to() {
        let files = [&FILES[..], &["elsewhere/c.pt", "elsewhere/d.pt"]].concat();
        let links = [
            ("ckpt/other", "../elsewhere"),
            ("ckpt/one.pt", "../elsewhere/c.pt"),
            ("ckpt/dangling", "nowhere"),
            ("ckpt/loop", "loop"),
        ];
        let copies = ["ckpt/one.pt", "ckpt/other/c.pt", "ckpt/other/d.pt"];
        let mut expected = [&FILES[..], &copies].concat();
        expected.sort_unstable();
        assert_eq!(found(&files, &links, &["ckpt"]), expected);
        // Half of what the link leads to would be missing.
        let half = found(&files, &links, &["ckpt/other", "elsewhere/c.pt"]);
        assert_eq!(half, ["ckpt/other/c.pt", "ckpt/other/d.pt", "elsewhere/c.pt"]);
        let whole = found(&files, &links, &["ckpt/other", "elsewhere"]);
        assert_eq!(whole, ["ckpt/other -> ../elsewhere", "elsewhere/c.pt", "elsewhere/d.pt"]);
        // A chain through a link that does not come along is made shorter.
        let links = [("ckpt/last", "../alias/checkpoint-3"), ("alias", "ckpt")];
        assert!(found(&FILES, &links, &["ckpt"]).contains(&"ckpt/last -> checkpoint-3".to_owned()));
    }

    #[test]
    fn links_to_a_folder_that_holds_them_stay_links() {
        let links = [("ckpt/itself", "."), ("ckpt/checkpoint-3/up", ".."), ("ckpt/top", "$WORK")];
        let found = found(&[&FILES[..], &["train.py"]].concat(), &links, &["ckpt"]);
        for link in ["ckpt/itself -> .", "ckpt/checkpoint-3/up -> ..", "ckpt/top -> .."] {
            assert!(found.contains(&link.to_owned()), "{link}: {found:?}");
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn a_list_with_a_link_to_anything_else_is_refused() {
        let link = |path: &str, target: &str| BundleEntry {
            path: EntryPath::Text(path.into()),
            kind: EntryKind::Link { target: EntryPath::Text(target.into()) },
        };
        let file = |path: &str| BundleEntry {
            path: EntryPath::Text(path.into()),
            kind: EntryKind::File { bytes: 0, executable: false },
        };
        let wrong = [
            vec![file("a/x"), link("a/l", "/etc")],
            vec![file("a/x"), link("a/l", "../../etc")],
            vec![file("a/x"), link("a/l", "../b")],
            vec![file("a/x"), link("a/l", "x/../../..")],
            vec![file("a/x"), link("a/l", "../.git/config")],
            vec![file("a/x"), link("l", "a"), file("l/y")],
            vec![file("a/x"), link("l", "a"), file("./l/y")],
            vec![file("a/x"), link("a/l", "")],
            vec![link("a", "b")],
        ];
        for entries in wrong {
            let error = check(&entries).unwrap_err().render();
            assert!(error.starts_with("refused to "), "{error}");
        }
        check(&[file("a/x"), link("l", "a"), link("b/m", "../l"), link("b/n", "../a/x")]).unwrap();
    }

    /// A workspace of files and links at random, whose checkpoint goes home and to the next machine, reads
    /// the same there.
    #[test]
    fn whatever_the_links_are_the_next_machine_reads_the_same() {
        use crate::{
            BundleHeader, BundleSender, FileStability, ReceivePolicy, TargetFolder, everything, find, receive,
        };
        const ROUNDS: u32 = 150;
        let seed =
            std::env::var("TRAINSPOT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
        println!("TRAINSPOT_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let folders = ["ckpt", "ckpt/a", "ckpt/a/b", "ckpt/c", "data", "data/d"];
        let mut links = 0;
        for _ in 0..ROUNDS {
            let root = tempfile::tempdir().unwrap();
            let [work, kept, next] = ["work", "kept", "next"].map(|name| root.path().join(name));
            for folder in [&kept, &next] {
                fs::create_dir(folder).unwrap();
            }
            for folder in folders {
                fs::create_dir_all(work.join(folder)).unwrap();
                for number in 0..random.u32(0..3) {
                    fs::write(work.join(folder).join(format!("f{number}")), random.u64(..).to_string())
                        .unwrap();
                }
            }
            for number in 0..random.u32(1..8) {
                let (from, to) = (random.choice(folders).unwrap(), random.choice(folders).unwrap());
                let name = random.choice(["", "/f0", "/f1", "/l0", "/l1", "/l2"]).unwrap();
                let up = "../".repeat(from.split('/').count());
                let target = if random.bool() {
                    format!("{}/{to}{name}", work.display())
                } else {
                    format!("{up}{to}{name}")
                };
                symlink(target, work.join(from).join(format!("l{number}"))).unwrap();
            }
            let patterns = [random.choice(["ckpt", "ckpt/**"]).unwrap().to_owned()];
            let entries = find_with_links(&work, &patterns).unwrap();
            links += entries.iter().filter(|entry| matches!(entry.kind, EntryKind::Link { .. })).count();
            for (from, to, entries) in [(&work, &kept, Some(entries)), (&kept, &next, None)] {
                let entries = entries.unwrap_or_else(|| everything(from).unwrap());
                let mut stream = Vec::new();
                let mut sender =
                    BundleSender { root: from, files: FileStability::Final, progress: &mut |_| {} };
                sender.send(&BundleHeader { entries, unmatched: Vec::new() }, &mut stream).unwrap();
                let place = TargetFolder::open(to).unwrap().with_own_links();
                let policy = ReceivePolicy::matching(&patterns).unwrap();
                receive(&stream[..], &place, &policy, FileStability::Final, |_| {}, |_| {}).unwrap();
            }
            // A list ends where a link leads back, which it may do one copy later on the next machine: what
            // counts is what is read there by each path of either list.
            for listed in [&work, &next] {
                for entry in find(listed, &["ckpt".to_owned()]).unwrap().files {
                    let path = entry.path.to_path();
                    let read = |root: &Path| fs::read_to_string(root.join(&path)).unwrap();
                    assert_eq!(read(&next), read(&work), "{} TRAINSPOT_SEED={seed}", path.display());
                }
            }
        }
        println!("{links} links in {ROUNDS} workspaces");
        assert!(links > 50, "{links}");
    }
}
