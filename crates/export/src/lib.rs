//! An image or a tree to where the user wants it.
//!
//! Files appear under their names only when they are whole: everything is written beside its destination and renamed.
//! The same image gives the same bytes, whenever and wherever it is exported.

mod archive;
mod dest;
mod docker_archive;
mod error;
mod image;
mod oci_layout;

pub use dest::write_file;
pub use docker_archive::write_docker_archive;
pub use error::{ExportError, Result};
pub use image::ExportImage;
pub use oci_layout::{write_oci_archive, write_oci_layout_dir};
