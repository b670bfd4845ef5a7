//! The policy of a sandbox on disk, beside its record: what whoever serves its network goes by.

use crate::{
    config::Terms,
    linux::record::{lock_soon, storage_error},
};
use sandbox_core::{NetworkPolicy, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

const FILE: &str = "network.json";

/// What a sandbox may reach, as it was asked for and as the operator has allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) policy: NetworkPolicy,
    pub(crate) terms: Terms,
}

/// What holds for the sandbox whose record is in this directory; `None` if its network is not captured.
pub(crate) fn read(record: &Path) -> Result<Option<Stored>> {
    let failed = |error| storage_error(error, "the sandbox's network policy could not be read");
    let text = match fs::read(record.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let stored = serde_json::from_slice(&text);
    stored.map(Some).map_err(|error| failed(error.into()))
}

/// Puts it down, whole or not at all.
pub(crate) fn write(record: &Path, stored: &Stored) -> Result<()> {
    let write = || {
        let new = record.join("network.new");
        fs::write(&new, serde_json::to_vec_pretty(stored)?)?;
        fs::rename(new, record.join(FILE))
    };
    write().map_err(|error| storage_error(error, "the sandbox's network policy could not be kept"))
}

/// Waits until nobody else changes it, nor will as long as what is returned is there.
pub(crate) fn change_alone(record: &Path) -> Result<File> {
    let lock = || lock_soon(File::create(record.join("network.lock"))?);
    lock().map_err(|error| storage_error(error, "the sandbox's network policy could not be locked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Opening;

    #[test]
    fn what_is_put_down_is_found_again() {
        let record = tempfile::tempdir().unwrap();
        assert_eq!(read(record.path()).unwrap(), None);
        let stored = Stored {
            policy: "allow *.example.com:443\ndefault deny".parse().unwrap(),
            terms: Terms {
                opened: vec![Opening {
                    address: [203, 0, 113, 0].into(),
                    prefix: 24,
                    port: None,
                }],
                nameservers: Some(vec!["203.0.113.53:53".parse().unwrap()]),
            },
        };
        write(record.path(), &stored).unwrap();
        assert_eq!(read(record.path()).unwrap(), Some(stored));
        fs::write(record.path().join(FILE), "{").unwrap();
        read(record.path()).unwrap_err();
    }
}
