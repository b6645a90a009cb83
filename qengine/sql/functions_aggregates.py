"""Aggregates beyond ADQL, and window functions.

An aggregate that is mergeable is computed in the tiles and merged; for the others the tiles deliver their rows, and the aggregate
is computed once. Those whose answer depends on the order of rows (STRING_AGG, LIST) take ORDER BY inside the parentheses; without
it they go by the order of the values, so that the answer does not depend on how the table is cut.
"""

from __future__ import annotations

import math

from qengine.sql.signatures import Function, Role, Value, fn


def _agg(
    signature: str,
    description: str,
    example: tuple[str, Value],
    *,
    target: str = "",
    mergeable: bool = False,
    also: tuple[str, ...] = (),
) -> Function:
    return fn(signature, description, example, target=target, mergeable=mergeable, role=Role.AGGREGATE, also=also)


def _win(signature: str, description: str, example: tuple[str, Value]) -> Function:
    return fn(signature, description, example, role=Role.WINDOW)


AGGREGATES = (
    _agg("STDDEV(x double) -> DOUBLE =", "Standard deviation (n - 1).", ("STDDEV(n)", math.sqrt(5 / 3)), mergeable=True),
    _agg("STDDEV_SAMP(x double) -> DOUBLE =", "STDDEV.", ("STDDEV_SAMP(n)", math.sqrt(5 / 3)), mergeable=True),
    _agg("STDDEV_POP(x double) -> DOUBLE =", "Standard deviation (n).", ("STDDEV_POP(n)", math.sqrt(1.25)), mergeable=True),
    _agg("VARIANCE(x double) -> DOUBLE", "Variance (n - 1).", ("VARIANCE(n)", 5 / 3), mergeable=True),
    _agg("VAR_SAMP(x double) -> DOUBLE", "VARIANCE.", ("VAR_SAMP(n)", 5 / 3), mergeable=True),
    _agg("VAR_POP(x double) -> DOUBLE", "Variance (n).", ("VAR_POP(n)", 1.25), mergeable=True),
    _agg("COUNT_IF(condition boolean) -> BIGINT", "Number of rows that fulfil a condition.", ("COUNT_IF(n > 2)", 2),
         mergeable=True),
    _agg("BOOL_AND(condition boolean) -> BOOLEAN", "Whether all rows fulfil a condition.", ("BOOL_AND(n > 2)", False),
         mergeable=True),
    _agg("BOOL_OR(condition boolean) -> BOOLEAN", "Whether any row fulfils a condition.", ("BOOL_OR(n > 2)", True), mergeable=True),
    _agg("ANY_VALUE(x any) -> = =", "One of the values (the least).", ("ANY_VALUE(n)", 1), mergeable=True),
    _agg("MEDIAN(x double) -> DOUBLE =", "Median, exact.", ("MEDIAN(n)", 2.5)),
    _agg("QUANTILE(x double, fraction double) -> DOUBLE =", "Quantile with interpolation, exact.", ("QUANTILE(n, 0.25)", 1.75),
         target="quantile_cont"),
    _agg("PERCENTILE_CONT(x double, fraction double) -> DOUBLE =", "QUANTILE; also in the form with WITHIN GROUP.",
         ("PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY n)", 1.75), target="quantile_cont"),
    _agg("PERCENTILE_DISC(x any, fraction double) -> = =",
         "The value at a fraction, without interpolation; also with WITHIN GROUP.",
         ("PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY name)", "b"), target="quantile_disc"),
    _agg("MODE(x any) -> = =", "The commonest value, of several the least.", ("MODE(n)", 1)),
    _agg("MAD(x double) -> DOUBLE =", "Median of the absolute deviations from the median.", ("MAD(n)", 1.0)),
    _agg("ARG_MIN(x any, y any) -> = =", "x of the row with the least y; of equal ones the least x.", ("ARG_MIN(name, x)", "a")),
    _agg("ARG_MAX(x any, y any) -> = =", "x of the row with the greatest y; of equal ones the least x.", ("ARG_MAX(name, x)", "d")),
    _agg("STRING_AGG(s text, separator text) -> VARCHAR", "Texts joined; takes ORDER BY inside the parentheses.",
         ("STRING_AGG(name, '+' ORDER BY n DESC)", "d+c+b+a")),
    _agg("LIST(x any) -> list", "All values, NULLs too, as a list; takes ORDER BY inside the parentheses.",
         ("LIST(n ORDER BY n DESC)", [4, 3, 2, 1])),
    _agg("ARRAY_AGG(x any) -> list", "LIST.", ("ARRAY_AGG(n)", [1, 2, 3, 4]), target="list"),
    _agg("BIT_AND(x bigint) -> BIGINT", "Bits that all values have.", ("BIT_AND(n)", 0)),
    _agg("BIT_OR(x bigint) -> BIGINT", "Bits that any value has.", ("BIT_OR(n)", 7)),
    _agg("BIT_XOR(x bigint) -> BIGINT", "Bits that an odd number of values has.", ("BIT_XOR(n)", 4)),
    _agg("PRODUCT(x double) -> DOUBLE", "Product.", ("PRODUCT(n)", 24.0)),
    _agg("SKEWNESS(x double) -> DOUBLE", "Skewness.", ("SKEWNESS(n)", 0.0)),
    _agg("KURTOSIS(x double) -> DOUBLE", "Excess kurtosis.", ("KURTOSIS(n)", -1.2)),
    _agg("ENTROPY(x any) -> DOUBLE", "Entropy of the distribution of values, in bits.", ("ENTROPY(n)", 2.0)),
    _agg("CORR(y double, x double) -> DOUBLE", "Correlation coefficient.", ("CORR(n, x)", 1.0)),
    _agg("COVAR_POP(y double, x double) -> DOUBLE", "Covariance (n).", ("COVAR_POP(n, x)", 0.625)),
    _agg("COVAR_SAMP(y double, x double) -> DOUBLE", "Covariance (n - 1).", ("COVAR_SAMP(n, x)", 2.5 / 3)),
    _agg("REGR_SLOPE(y double, x double) -> DOUBLE", "Slope of the straight line through the points.", ("REGR_SLOPE(n, x)", 2.0)),
    _agg("REGR_INTERCEPT(y double, x double) -> DOUBLE", "Value of that line at 0.", ("REGR_INTERCEPT(n, x)", 0.0)),
    _agg("REGR_R2(y double, x double) -> DOUBLE", "Coefficient of determination.", ("REGR_R2(n, x)", 1.0)),
    _agg("REGR_COUNT(y double, x double) -> BIGINT", "Number of pairs without NULL.", ("REGR_COUNT(n, x)", 4)),
    _agg("REGR_AVGX(y double, x double) -> DOUBLE", "Mean x of the pairs.", ("REGR_AVGX(n, x)", 1.25)),
    _agg("REGR_AVGY(y double, x double) -> DOUBLE", "Mean y of the pairs.", ("REGR_AVGY(n, x)", 2.5)),
    _agg("REGR_SXX(y double, x double) -> DOUBLE", "Sum of the squares of x about their mean.", ("REGR_SXX(n, x)", 1.25)),
    _agg("REGR_SYY(y double, x double) -> DOUBLE", "Sum of the squares of y about their mean.", ("REGR_SYY(n, x)", 5.0)),
    _agg("REGR_SXY(y double, x double) -> DOUBLE", "Sum of the products about the means.", ("REGR_SXY(n, x)", 2.5)),
    _agg("APPROX_COUNT_DISTINCT(x any) -> BIGINT", "Number of different values, to a few per cent.", ("APPROX_COUNT_DISTINCT(flag)",
         2)),
    _agg("APPROX_QUANTILE(x double, fraction double) -> DOUBLE =", "Quantile by a t-digest.", ("APPROX_QUANTILE(n, 0.5)", 2.5)),
    _agg("HISTOGRAM(x double, low double, high double, n integer) -> BIGINT[]",
         "Counts below low, in n equal bins, and from high on.", ("HISTOGRAM(x, 0, 2, 2)", [0, 1, 2, 1]), target="qe_bin"),
)  # fmt: skip

WINDOWS = (
    _win("ROW_NUMBER() -> BIGINT", "Number of the row in its window.", ("ROW_NUMBER() OVER (ORDER BY x)", 1)),
    _win("RANK() -> BIGINT", "Rank with gaps.", ("RANK() OVER (ORDER BY x)", 1)),
    _win("DENSE_RANK() -> BIGINT", "Rank without gaps.", ("DENSE_RANK() OVER (ORDER BY x)", 1)),
    _win("PERCENT_RANK() -> DOUBLE", "(rank - 1) / (rows - 1).", ("PERCENT_RANK() OVER (ORDER BY x)", 0.0)),
    _win("CUME_DIST() -> DOUBLE", "Share of the rows up to this one.", ("CUME_DIST() OVER (ORDER BY n)", 0.25)),
    _win("NTILE(n integer) -> BIGINT", "Number of the n-th part that the row falls into.", ("NTILE(2) OVER (ORDER BY n)", 1)),
    _win("LAG(x any, [rows integer], [default any]) -> = =", "Value of an earlier row.", ("LAG(n, 1, 9) OVER (ORDER BY n)", 9)),
    _win("LEAD(x any, [rows integer], [default any]) -> = =", "Value of a later row.", ("LEAD(n) OVER (ORDER BY n)", 2)),
    _win("FIRST_VALUE(x any) -> = =", "Value of the first row of the frame.", ("FIRST_VALUE(n) OVER (ORDER BY n DESC)", 4)),
    _win("LAST_VALUE(x any) -> = =", "Value of the last row of the frame.", ("LAST_VALUE(n) OVER (ORDER BY n)", 1)),
    _win("NTH_VALUE(x any, n integer) -> = =", "Value of the n-th row of the frame.", ("NTH_VALUE(n, 1) OVER (ORDER BY n)", 1)),
)  # fmt: skip
