//! Layers as tar streams, in both directions.
//!
//! * [`pack`] turns sorted [`rbuild_tree::LayerEntry`]s into a layer blob: tar as Go's `archive/tar` writes it (USTAR
//!   headers, PAX records only where needed), whiteouts, one gzip member made by many threads, or zstd. The bytes depend
//!   on the entries and the options alone (DESIGN promise 3), and every file is hashed again while it is read.
//! * [`TarReader`] reads tar strictly (USTAR, PAX, GNU, sparse); [`decompress`] is what stands before it.
//! * [`unpack_layer`] turns a layer blob into an overlayfs upper directory, [`unpack_archive`] a user's archive into
//!   a directory, [`stage_archive`] into entries for another tree, all without ever leaving the directory they are given (DESIGN promise 6).
//!
//! Everything streams; memory is bounded whatever the input. Where layers live is not known here.

mod archive;
mod decompress;
mod error;
mod gzip;
mod header;
mod pack;
mod read;
mod unpack;

pub use archive::{UnpackedArchive, is_archive, unpack_archive};
pub use decompress::{
    Codec, Decompressor, MAX_XZ_MEMORY_KIB, MAX_ZSTD_WINDOW_LOG, decompress, decompress_sniffed,
};
pub use error::{DecompressError, PackError, TarError, UnpackError};
pub use pack::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, PackOptions, Packed, pack, pack_slice};
pub use read::{
    MAX_LINK_BYTES, MAX_PATH_BYTES, MAX_PAX_BYTES, MAX_SPARSE_SEGMENTS, MAX_XATTR_BYTES, TarEntry, TarKind,
    TarReader, read_tar,
};
pub use unpack::{
    Limits, MAX_ARCHIVE_NAME_BYTES, MAX_DIRECTORY_BYTES, MAX_ENTRIES, MAX_UNPACKED_BYTES, StagedEntry,
    Unpacked, stage_archive, unpack_layer,
};

/// Prefix of the tar name of a whiteout (image-spec, layer.md "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Name of the tar entry that makes its directory opaque (image-spec, layer.md "Opaque Whiteout").
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// Prefix of the names that aufs kept for itself; readers skip them.
pub(crate) const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The unit of a tar stream.
pub(crate) const BLOCK: usize = 512;
/// The key under which PAX carries an extended attribute.
pub(crate) const PAX_XATTR: &[u8] = b"SCHILY.xattr.";
