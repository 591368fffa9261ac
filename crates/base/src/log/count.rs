//! Counted things in words.

/// A number with its noun, such as `1 file` or `3 files`. The noun is one whose plural ends in `s`.
#[must_use]
pub fn count(number: impl Into<Counted>, noun: &str) -> String {
    let Counted(number) = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A number of things, from whatever integer a caller counts with.
pub struct Counted(u64);

impl From<u64> for Counted {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<u32> for Counted {
    fn from(number: u32) -> Self {
        Self(number.into())
    }
}

impl From<usize> for Counted {
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn only_one_is_singular() {
        let counted = [0_u64, 1, 2, 1000].map(|number| count(number, "file"));
        assert_eq!(counted, ["0 files", "1 file", "2 files", "1000 files"]);
        assert_eq!(count(1_usize, "more byte"), "1 more byte");
    }
}
