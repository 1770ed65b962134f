//! What the kernel says of this process.

/// Of this process.
pub(super) struct Process {
    /// Bytes of memory that are its own.
    pub(super) heap: u64,
    /// Bytes of the first thread's stack.
    pub(super) stack: u64,
    pub(super) threads: u64,
}

impl Process {
    /// As the kernel counts it; zero where it does not say.
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
        };
        Self { heap: number("RssAnon:") << 10, stack: number("VmStk:") << 10, threads: number("Threads:") }
    }
}
