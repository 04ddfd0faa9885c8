//! Formats times and rates with a suitable unit.

/// Formats seconds as s, ms or µs.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.3} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

/// Formats an amount of `unit` per second with an SI prefix from M to T.
pub fn per_second(amount: f64, unit: &str) -> String {
    match amount {
        a if a >= 1e12 => format!("{:.2} T{unit}/s", a * 1e-12),
        a if a >= 1e9 => format!("{:.1} G{unit}/s", a * 1e-9),
        a => format!("{:.1} M{unit}/s", a * 1e-6),
    }
}
