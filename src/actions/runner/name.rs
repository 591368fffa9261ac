//! Names of runners, by which those of a repository, and of a run, are known.

use trainspot_compute::RunId;

/// Bitbucket takes 50 characters in all. Of a longer name of a repository, the end becomes a hash: two that
/// begin alike stay apart.
const SLUG_LIMIT_CHARS: usize = 22;
const HASH_CHARS: usize = 8;

/// The name of a run's runner: `trainspot-forest-0123456789abcdef`.
pub(crate) fn name(slug: &str, run: &RunId) -> String {
    format!("{}{run}", prefix(slug))
}

/// The run whose runner has this name; none of one that is not of this repository, or not ours.
pub(crate) fn run_of(slug: &str, name: &str) -> Option<RunId> {
    let run = name.strip_prefix(&prefix(slug))?;
    let ours = run.len() == 16 && run.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
    ours.then(|| RunId::from_name(run))
}

fn prefix(slug: &str) -> String {
    if slug.len() <= SLUG_LIMIT_CHARS {
        return format!("trainspot-{slug}-");
    }
    let start: String = slug.chars().take(SLUG_LIMIT_CHARS - HASH_CHARS - 1).collect();
    format!("trainspot-{start}-{}-", &blake3::hash(slug.as_bytes()).to_hex()[..HASH_CHARS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_run() {
        let run = RunId::new(&["a"]);
        for slug in ["forest", "a-very-long-name-of-a-repository-indeed", ""] {
            let name = name(slug, &run);
            assert!(name.len() <= 50, "{name}");
            assert_eq!(run_of(slug, &name), Some(run.clone()));
            assert_eq!(run_of("other", &name), None);
        }
        let long = "a-very-long-name-of-a-repository-indeed";
        assert_eq!(run_of("a-very-long-name-of-a-repository-in-truth", &name(long, &run)), None);
        for other in ["trainspot-forest-", "trainspot-forest-0123456789ABCDEF", "gpu-forest-0123456789abcdef"]
        {
            assert_eq!(run_of("forest", other), None, "{other}");
        }
    }
}
