//! TPM commands without the TPM libraries, for the few that the libraries' wrapper lacks: reading the clock, and
//! flushing what a killed process left loaded. Command and response formats: TPM 2.0 Library, part 1, section 16 and
//! part 3.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::TpmError;

/// `TPM_ST_NO_SESSIONS`.
const NO_SESSIONS: u16 = 0x8001;
const CC_FLUSH_CONTEXT: u32 = 0x0165;
const CC_GET_CAPABILITY: u32 = 0x017a;
const CC_READ_CLOCK: u32 = 0x0181;
const CAP_HANDLES: u32 = 1;
const HEADER: usize = 10;
/// Largest response that any TPM sends.
const RESPONSE_BYTES_MAX: usize = 4096;
/// A software TPM that is busy with another client answers once that one has left.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A device node; one with the kernel's resource manager (`/dev/tpmrm0`), so that others may use the TPM too.
    Device(PathBuf),
    /// A software TPM's data port; its control port is the next one.
    Swtpm {
        /// Name or address.
        host: String,
        /// The data port.
        port: u16,
    },
}

impl FromStr for Address {
    type Err = TpmError;

    /// Reads `device:PATH` or `swtpm:host=HOST,port=PORT`, the notation of tpm2-tools.
    fn from_str(text: &str) -> Result<Self, TpmError> {
        match text.split_once(':') {
            Some(("device", path)) if !path.is_empty() => Ok(Self::Device(path.into())),
            Some(("swtpm", settings)) => swtpm(settings).ok_or(TpmError::Address),
            _ => Err(TpmError::Address),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Swtpm { host, port } => write!(f, "swtpm:host={host},port={port}"),
        }
    }
}

fn swtpm(settings: &str) -> Option<Address> {
    let (mut host, mut port) = (None, None);
    for setting in settings.split(',') {
        match setting.split_once('=')? {
            ("host", value) if !value.is_empty() => host = Some(value.to_owned()),
            ("port", value) => port = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(Address::Swtpm { host: host?, port: port? })
}

/// An open connection; commands go through it one at a time.
pub(super) enum Raw {
    Device(File),
    Socket(TcpStream),
}

impl Raw {
    pub(super) fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Device(path) => Ok(Self::Device(OpenOptions::new().read(true).write(true).open(path)?)),
            Address::Swtpm { host, port } => {
                let socket = TcpStream::connect((host.as_str(), *port))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_nodelay(true)?;
                Ok(Self::Socket(socket))
            }
        }
    }

    /// The parameters of `TPM2_ReadClock`'s answer: time, clock, resetCount, restartCount, safe.
    pub(super) fn read_clock(&mut self) -> Result<Vec<u8>, TpmError> {
        self.command("read its clock", CC_READ_CLOCK, &[])
    }

    /// Flushes every object and session. Only for a TPM without resource manager, whose single client we are now.
    pub(super) fn flush_all(&mut self) -> Result<(), TpmError> {
        // HMAC sessions (the range that loaded sessions of either type are listed under), then transient objects.
        for range in [0x0200_0000, 0x8000_0000] {
            for handle in self.handles(range)? {
                self.command("flush", CC_FLUSH_CONTEXT, &[handle])?;
            }
        }
        Ok(())
    }

    fn handles(&mut self, range: u32) -> Result<Vec<u32>, TpmError> {
        let answer = self.command("list handles", CC_GET_CAPABILITY, &[CAP_HANDLES, range, 254])?;
        // moreData u8, capability u32, count u32, then the handles.
        let listed = answer.get(9..).ok_or(TpmError::Malformed("list of handles"))?;
        Ok(listed.as_chunks::<4>().0.iter().map(|handle| u32::from_be_bytes(*handle)).collect())
    }

    fn command(&mut self, operation: &'static str, code: u32, parameters: &[u32]) -> Result<Vec<u8>, TpmError> {
        let length = u32::try_from(HEADER + 4 * parameters.len()).expect("a few parameters");
        let mut command = NO_SESSIONS.to_be_bytes().to_vec();
        for word in [length, code].iter().chain(parameters) {
            command.extend_from_slice(&word.to_be_bytes());
        }
        let response = self.exchange(&command).map_err(|error| TpmError::Unavailable(error.to_string()))?;
        let (header, parameters) = response.split_at_checked(HEADER).ok_or(TpmError::Malformed("response"))?;
        match u32_at(header, 6) {
            Some(0) => Ok(parameters.to_vec()),
            code => Err(TpmError::Refused { operation, code: code.unwrap_or_default() }),
        }
    }

    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Device(device) => {
                // The device takes a command in one write and gives its response in one read.
                device.write_all(command)?;
                let mut response = vec![0; RESPONSE_BYTES_MAX];
                let length = device.read(&mut response)?;
                response.truncate(length);
                Ok(response)
            }
            Self::Socket(socket) => {
                socket.write_all(command)?;
                let mut response = vec![0; HEADER];
                socket.read_exact(&mut response)?;
                let length = u32_at(&response, 2).and_then(|length| usize::try_from(length).ok());
                let length = length.filter(|length| (HEADER..=RESPONSE_BYTES_MAX).contains(length));
                response.resize(length.ok_or(io::ErrorKind::InvalidData)?, 0);
                socket.read_exact(&mut response[HEADER..])?;
                Ok(response)
            }
        }
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_tpm2_tools_write_them() {
        for text in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "device", "device:", "mssim:host=a,port=1", "swtpm:", "swtpm:host=a", "swtpm:host=a,port=70000"]
        {
            assert_eq!(text.parse::<Address>(), Err(TpmError::Address), "{text}");
        }
    }
}
