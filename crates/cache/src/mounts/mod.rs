//! Cache mounts that live elsewhere: what `--cache-mounts-to` writes and `--cache-mounts-from` reads.
//!
//! An ordinary OCI image manifest whose config ([`CONFIG_MEDIA_TYPE`]) lists the mounts, and whose layers are *chunks*: the tar
//! archive of each mount, cut where its content says (FastCDC), every chunk compressed on its own. A file that changes
//! changes the chunks around it; all others are in the manifest that was there before, and are neither compressed, probed
//! nor sent again. Two mounts that hold the same files share chunks.

mod document;
mod export;
mod import;

pub use document::{CONFIG_MEDIA_TYPE, MAX_MOUNTS, StoredMount};
pub use export::{MountSnapshot, MountsExporter, MountsPublished};
pub use import::{MountsImporter, Restored};
