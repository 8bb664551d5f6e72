//! An agent that offers keys of this process (draft-miller-ssh-agent). It can be asked for its keys and for signatures,
//! and for nothing else: a step cannot add, remove or lock keys.

use super::key::SshKey;
use super::wire::{Reader, put_string};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest request, in bytes; OpenSSH's own limit.
const MAX_REQUEST: u32 = 256 << 10;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Answers until the other side has had enough.
pub(super) async fn converse(keys: &[SshKey], step: &mut UnixStream) -> std::io::Result<()> {
    loop {
        let length = match step.read_u32().await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            length => length?,
        };
        if length > MAX_REQUEST {
            return Ok(());
        }
        let mut request = vec![0; length as usize];
        step.read_exact(&mut request).await?;
        let answer = answer(keys, &request).unwrap_or_else(|| vec![FAILURE]);
        let mut framed = Vec::new();
        put_string(&mut framed, &answer);
        step.write_all(&framed).await?;
    }
}

/// `None` is a refusal.
fn answer(keys: &[SshKey], request: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(request);
    match reader.u8()? {
        REQUEST_IDENTITIES => {
            let mut out = vec![IDENTITIES_ANSWER];
            out.extend_from_slice(&u32::try_from(keys.len()).ok()?.to_be_bytes());
            for key in keys {
                put_string(&mut out, key.blob());
                put_string(&mut out, key.comment().as_bytes());
            }
            Some(out)
        }
        SIGN_REQUEST => {
            let (blob, data, flags) = (reader.string()?, reader.string()?, reader.u32()?);
            let key = keys.iter().find(|key| key.blob() == blob)?;
            let mut out = vec![SIGN_RESPONSE];
            put_string(&mut out, &key.sign(data, flags)?);
            Some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused() {
        for request in [&b""[..], &[0], &[17, 0, 0], &[13, 255, 255, 255, 255], &[13, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(answer(&[], request), None, "{request:?}");
        }
        assert_eq!(answer(&[], &[11]), Some(vec![12, 0, 0, 0, 0]));
    }
}
