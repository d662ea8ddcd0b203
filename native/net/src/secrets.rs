//! The key that seals Record-Route; it survives a restart, so that dialogs do.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use proto::Secret;

/// Reads the key from `directory`, or makes one that only we can read.
pub(crate) fn route_secret(directory: &Path) -> io::Result<Secret> {
    fs::create_dir_all(directory)?;
    let path = directory.join("route.key");
    let mut bytes = [0u8; 16];
    match fs::File::open(&path) {
        Ok(mut file) => {
            file.read_exact(&mut bytes).map_err(|error| io::Error::new(error.kind(), format!("{}: expected 16 bytes: {error}", path.display())))?;
            Ok(Secret::new(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
            // Written aside and renamed: a crash never leaves half a key.
            let fresh = directory.join("route.key.new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            Ok(Secret::new(bytes))
        }
        Err(error) => Err(error),
    }
}
