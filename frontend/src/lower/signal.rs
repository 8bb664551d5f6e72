//! Signals of STOPSIGNAL.

/// Names with the numbers of Linux (x86 and ARM).
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];
/// `RTMIN+1` to `RTMIN+15` and `RTMAX-1` to `RTMAX-14` have names.
const RT_ABOVE_MIN: u32 = 15;
const RT_BELOW_MAX: u32 = 14;

/// Whether `text` names a signal: a number other than 0, or a name with or without `SIG`, in any case.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let within = |offset: &str, most| offset.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n));
    match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(offset), _) => within(offset, RT_ABOVE_MIN),
        (_, Some(offset)) => within(offset, RT_BELOW_MAX),
        _ => NAMES.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers() {
        for good in ["SIGTERM", "term", "9", "65", "-1", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-1", "SIGSTKFLT"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "SIGFOO", "", "1.5", "0x9", " 9", "SIGRTMIN+30", "RTMIN+0", "SIGSIGTERM"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
