//! What a server's pack may come to in memory: a few of its bytes can stand for very many.

use git2::Error;
use libgit2_sys::{
    GIT_OPT_SET_PACK_MAX_OBJECT_SIZE, GIT_OPT_SET_PACK_MAX_OBJECTS, git_libgit2_opt_t, git_libgit2_opts,
};
use std::ffi::c_int;
use std::io;

/// The most objects of one pack. Each takes some hundred bytes of memory while its pack is read. The 4 GB
/// that a repository of Bitbucket's has at most are 1 KB for each.
const OBJECTS_LIMIT: usize = 4_000_000;
/// The longest object that is put together from others, which takes all of it in memory. Git puts none
/// together that is longer than its `core.bigFileThreshold`, 512 MiB; libgit2's own limit is 2 GiB. Objects
/// that come whole go from the server to the disk in pieces. libgit2 has no limit for one that is then read.
const DELTA_LIMIT_BYTES: usize = 512 << 20;

/// Sets the limits in libgit2, for the whole process.
///
/// # Errors
/// libgit2 does not know them.
pub(super) fn set() -> Result<(), Error> {
    for (option, limit) in
        [(GIT_OPT_SET_PACK_MAX_OBJECTS, OBJECTS_LIMIT), (GIT_OPT_SET_PACK_MAX_OBJECT_SIZE, DELTA_LIMIT_BYTES)]
    {
        set_one(option, limit)?;
    }
    Ok(())
}

fn set_one(option: git_libgit2_opt_t, limit: usize) -> Result<(), Error> {
    let option = c_int::try_from(option).map_err(|error| Error::from_str(&error.to_string()))?;
    // SAFETY: both options take one `size_t`. They are set once, before the first repository is opened; each
    // pack only reads them.
    #[allow(unsafe_code, reason = "git2 has no function for these two")]
    let code = unsafe { git_libgit2_opts(option, limit) };
    if code < 0 { Err(Error::last_error(code)) } else { Ok(()) }
}

/// Why a pack could not be written. `git2` calls each failure of libgit2's a "Write error"; libgit2 itself
/// knows why.
pub(super) fn why_not_written(error: io::Error) -> io::Error {
    if error.to_string() != "Write error" {
        return error;
    }
    io::Error::other(Error::last_error(-1).message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use sha1::{Digest as _, Sha1};
    use std::io::Write as _;

    const MIB: usize = 1 << 20;

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// The lowest bits of a number, as many as `mask` has.
    fn low(number: usize, mask: u8) -> u8 {
        number.to_le_bytes()[0] & mask
    }

    /// A number as entries and differences of a pack have it: seven bits at a time.
    fn sevens(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(low(number, 0x7f) | 0x80);
            number >>= 7;
        }
        bytes.push(low(number, 0x7f));
        bytes
    }

    fn entry(kind: u8, before: &[u8], data: &[u8]) -> Vec<u8> {
        let first = 0x80 | kind << 4 | low(data.len(), 15);
        [&[first], sevens(data.len() >> 4).as_slice(), before, &deflated(data)].concat()
    }

    /// A pack of a megabyte of zeros, and of a difference to it that is the same megabyte over and over.
    fn pack(count: u32, megabytes: usize) -> Vec<u8> {
        let base = entry(3, &[], &vec![0; MIB]);
        // Copies from offset 0 a length of which only the third byte is told.
        let copy = [0xc0, 0x10];
        let delta = [sevens(MIB), sevens(MIB * megabytes), copy.repeat(megabytes)].concat();
        // How far back the base is, in git's other form of a number.
        let back = base.len() - 128;
        let offset = [0x80 | low(back >> 7, 0x7f), low(back, 0x7f)];
        let head = [*b"PACK", 2_u32.to_be_bytes(), count.to_be_bytes()].concat();
        let mut pack = [head, base, entry(6, &offset, &delta)].concat();
        let hash = Sha1::digest(&pack);
        pack.extend(hash);
        pack
    }

    fn taken(pack: &[u8]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        git2::Repository::init_bare(folder.path()).unwrap();
        let repository = super::super::open(folder.path()).unwrap();
        let odb = repository.odb().unwrap();
        let mut writer = odb.packwriter().unwrap();
        std::io::copy(&mut &pack[..], &mut writer).map_err(|error| error.to_string())?;
        writer.commit().map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_pack_may_not_unpack_to_more_than_git_makes() {
        let (usual, bomb) = (pack(2, 3), pack(2, (DELTA_LIMIT_BYTES >> 20) + 1));
        assert_eq!(taken(&usual), Ok(()));
        assert!(bomb.len() < 10_000, "{}", bomb.len());
        let why = taken(&bomb).unwrap_err();
        assert!(why.contains("overly large object"), "{why}");
    }

    #[test]
    fn a_pack_of_more_objects_than_there_can_be_is_refused_by_its_head() {
        let folder = tempfile::tempdir().unwrap();
        git2::Repository::init_bare(folder.path()).unwrap();
        let repository = super::super::open(folder.path()).unwrap();
        let odb = repository.odb().unwrap();
        let most = u32::try_from(OBJECTS_LIMIT).unwrap();
        let written = |count| odb.packwriter().unwrap().write_all(&pack(count, 1)[..12]);
        for count in [1, most] {
            assert!(written(count).is_ok(), "{count}");
        }
        for count in [most + 1, u32::MAX] {
            assert_eq!(why_not_written(written(count).unwrap_err()).to_string(), "too many objects");
        }
    }
}
