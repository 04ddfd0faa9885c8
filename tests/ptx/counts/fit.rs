//! Coefficients of a kernel's terms, from what its launches execute.

/// Returns the coefficients, none of them negative, with which terms come closest to the counts:
/// the sum of squares of the relative errors is the least, where `few` are added to each count. Each
/// row holds the values of all terms for a launch.
pub fn fit(rows: &[Vec<f64>], counts: &[f64], few: f64) -> Vec<f64> {
    let terms = rows.first().map_or(0, Vec::len);
    let mut used: Vec<usize> = (0..terms).collect();
    loop {
        let found = least_squares(rows, counts, few, &used);
        let least = (0..used.len()).min_by(|&a, &b| found[a].total_cmp(&found[b]));
        match least.filter(|&least| found[least] < 0.0) {
            Some(least) => drop(used.remove(least)),
            None => {
                let mut all = vec![0.0; terms];
                used.iter().zip(found).for_each(|(&term, value)| all[term] = value);
                return all;
            }
        }
    }
}

/// Solves the normal equations for some of the terms.
fn least_squares(rows: &[Vec<f64>], counts: &[f64], few: f64, used: &[usize]) -> Vec<f64> {
    let n = used.len();
    let mut matrix = vec![vec![0.0; n + 1]; n];
    for (row, &count) in rows.iter().zip(counts) {
        let scale = 1.0 / (count + few);
        for (sums, &i) in matrix.iter_mut().zip(used) {
            for (sum, &j) in sums.iter_mut().zip(used) {
                *sum += row[i] * row[j] * scale * scale;
            }
            sums[n] += row[i] * count * scale * scale;
        }
    }
    solve(matrix)
}

/// Solves a system by elimination with pivots; the last column is the right side. A term that the
/// launches do not tell from others gets 0.
fn solve(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
    let n = matrix.len();
    // Terms differ by orders of magnitude, so each equation is scaled by its diagonal.
    let scales: Vec<f64> =
        (0..n).map(|i| matrix[i][i].sqrt()).map(|s| if s > 0.0 { 1.0 / s } else { 0.0 }).collect();
    for (row, scale) in matrix.iter_mut().zip(&scales) {
        row.iter_mut().zip(&scales).for_each(|(value, other)| *value *= scale * other);
        row[n] *= scale;
    }
    let mut pivots = vec![None; n];
    let mut free: Vec<usize> = (0..n).collect();
    for column in 0..n {
        let Some(&row) = free
            .iter()
            .max_by(|&&a, &&b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))
        else {
            break;
        };
        if matrix[row][column].abs() < 1e-9 {
            continue;
        }
        free.retain(|&other| other != row);
        pivots[column] = Some(row);
        let pivot = matrix[row].clone();
        for values in
            matrix.iter_mut().enumerate().filter(|(other, _)| *other != row).map(|(_, v)| v)
        {
            let by = values[column] / pivot[column];
            values.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= by * pivot);
        }
    }
    let value = |column: usize| {
        pivots[column].map_or(0.0, |row| matrix[row][n] / matrix[row][column] * scales[column])
    };
    (0..n).map(value).collect()
}

#[test]
fn coefficients_are_found() {
    let rows: Vec<Vec<f64>> =
        [(1.0, 10.0), (8.0, 10.0), (8.0, 4000.0), (2.0, 50.0)].map(|(a, b)| vec![a, b]).to_vec();
    let counts: Vec<f64> = rows.iter().map(|row| 55.0 * row[0] + 3.5 * row[1]).collect();
    let found = fit(&rows, &counts, 1.0);
    assert!((found[0] - 55.0).abs() < 1e-6 && (found[1] - 3.5).abs() < 1e-6, "{found:?}");
    // A term that would take something away is left out, and one that is always 0 as well.
    let rows: Vec<Vec<f64>> = rows.iter().map(|row| vec![row[0], row[1], 0.0]).collect();
    let counts: Vec<f64> = rows.iter().map(|row| 3.5 * row[1] - 0.5 * row[0]).collect();
    let found = fit(&rows, &counts, 1.0);
    assert_eq!([found[0], found[2]], [0.0, 0.0]);
    assert!(found[1] > 3.0 && found[1] < 3.5, "{found:?}");
}
