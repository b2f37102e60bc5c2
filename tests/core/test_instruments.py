"""The instruments file: what it says becomes rules, and what is wrong with one is named with line and key."""

import pytest

from stocktrade.core.instruments import MAX_FILE_BYTES, parse_instruments
from stocktrade.core.rules import NSE_INSTRUMENT, NSE_TICK_BANDS, RULES, Instrument, Rules
from stocktrade.domain.values import MAX_QUANTITY, Paise
from stocktrade.errors import ExitCode, UsageError

FULL = """\
# What a venue could have.
version = "2026-11"

[defaults]
ticks = [
  {from = 0, tick = 0.01},
  {from = 250, tick = 0.05},
]
max_quantity = 100_000
price_band_percent = 10

[symbols.SBI]
reference_price = 885
lot = 25

[symbols."nse:m&m"]
tick = 1
reference_price = 3000.00
price_band_percent = 2.5
"""


def parsed(text: str) -> Rules:
    return parse_instruments(text.encode(), source="instruments.toml")


def refused(data: str | bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(UsageError) as error:
        parse_instruments(data if isinstance(data, bytes) else data.encode(), source="my\x1b.toml")
    assert error.value.exit_code is ExitCode.USAGE
    assert error.value.what == "cannot use the instruments file my\\x1b.toml"
    assert error.value.hint
    return error.value.cause


def test_a_file_is_read_as_it_is_written() -> None:
    """Defaults for every symbol, a table's own keys above them, symbols by their canonical names."""
    rules = parsed(FULL)
    bands = ((0, 1), (250_00, 5))
    assert rules.other == Instrument(bands, 1, 100_000, None, 1_000)
    assert rules.instruments == {
        "SBIN": Instrument(bands, 25, 100_000, Paise(885_00), 1_000),
        "M&M": Instrument(((0, 100),), 1, 100_000, Paise(3_000_00), 250),
    }
    assert rules.instruments["SBIN"].price_band == (796_50, 973_50)
    assert rules.instruments["M&M"].price_band == (2_925_00, 3_075_00)
    assert (rules.remembered_ids, rules.max_open_orders) == (RULES.remembered_ids, RULES.max_open_orders)
    assert rules.instrument("INFY") == rules.other


def test_the_smallest_file_leaves_all_as_it_is() -> None:
    """A version and empty defaults are NSE's ticks, no lot, no band, no cap."""
    rules = parsed('version = "1"\n[defaults]\n')
    assert rules.other == NSE_INSTRUMENT == Instrument(NSE_TICK_BANDS, 1, MAX_QUANTITY, None, None)
    assert rules.instruments == {}


def test_without_defaults_only_the_named_symbols_are_traded() -> None:
    """A list of symbols is the whole market; with [defaults] every other symbol is traded, too."""
    rules = parsed('version = "1"\n[symbols.SBIN]\n')
    assert rules.instrument("SBIN") == NSE_INSTRUMENT
    assert rules.instrument("INFY") is None


def test_the_name_of_the_rules_tells_version_and_content() -> None:
    """Layout and comments make no other name; a number does, though the version stays, and so does the version."""
    name = parsed(FULL).name
    assert name.startswith("2026.1+2026-11@")
    moved = FULL.replace("# What", "# Otherwise what").replace("lot = 25", "  lot   =   2_5 # shares")
    assert parsed(moved.replace("[symbols.SBI]", "[symbols.sbin]")).name == name
    others = {
        parsed(FULL.replace(old, new)).name
        for old, new in (
            ("lot = 25", "lot = 26"),
            ("885", "886"),
            ("100_000", "100_001"),
            ("2.5", "2.51"),
            ("tick = 0.05", "tick = 0.10"),
            ("2026-11", "2026-12"),
            ("symbols.SBI]", "symbols.SBT]"),
        )
    }
    assert len(others - {name}) == 7
    assert (
        parsed('version = "1"\n[symbols.SBIN]\n').name != parsed('version = "1"\ndefaults = {}\n[symbols.SBIN]\n').name
    )


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('version = "2026-11"', "", "version: 1 to 32 letters"),
        ('"2026-11"', "2026", "line 2: version: 1 to 32 letters"),
        ('"2026-11"', '"a b"', "line 2: version: 1 to 32 letters"),
        ("lot = 25", "lots = 25", "line 14: symbols.SBI.lots: no such key; there is lot, max_quantity, "),
        ("[defaults]", "[default]", "line 4: default: no such key; there is defaults, symbols, version"),
        ("lot = 25", "lot = 0", "line 14: symbols.SBI.lot: a whole number of shares from 1 to 1,00,00,00,000"),
        ("lot = 25", "lot = 2.5", "line 14: symbols.SBI.lot: a whole number"),
        ("lot = 25", "lot = true", "line 14: symbols.SBI.lot: a whole number"),
        ("lot = 25", 'lot = "25"', "line 14: symbols.SBI.lot: a whole number"),
        ("lot = 25", "lot = 2000-01-01", "line 14: symbols.SBI.lot: a whole number"),
        ("lot = 25", "lot = 100_001", "line 12: symbols.SBI: 1, lot, max_quantity and 1000000000 must ascend"),
        ("lot = 25", "lot = 25\nlot = 26", "line 15: lot: Cannot overwrite a value"),
        ("lot = 25", "lot 25", "line 14: lot 25: "),
        ("= 885", "= 885.001", "line 13: symbols.SBI.reference_price: a number of rupees above zero with at most two"),
        ("= 885", "= nan", "line 13: symbols.SBI.reference_price: a number of rupees above zero"),
        ("= 885", "= -885", "line 13: symbols.SBI.reference_price: a number of rupees above zero"),
        ("= 885", "= 885.01", "line 12: symbols.SBI: a reference price is a multiple of its tick"),
        ("= 885", '= "885"', "line 13: symbols.SBI.reference_price: a number of rupees"),
        ("reference_price = 885", "price_band_percent = 5", "line 13: symbols.SBI.price_band_percent: a price band is"),
        ("lot = 25", "price_band_percent = 0", "line 14: symbols.SBI.price_band_percent: a percentage from 0.01"),
        ("lot = 25", "price_band_percent = 1001", "line 14: symbols.SBI.price_band_percent: a percentage from 0.01"),
        ("lot = 25", "price_band_percent = 2.555", "line 14: symbols.SBI.price_band_percent: a percentage from 0.01"),
        ("max_quantity = 100_000", "reference_price = 1", "line 9: defaults.reference_price: no such key"),
        ("from = 0,", "from = 1,", "line 5: defaults.ticks: the first band is from = 0"),
        ("from = 250,", "from = 0.00,", "line 5: defaults.ticks: a number of rupees above zero"),
        ("tick = 0.05}", "tick = 0.05, x = 1}", "line 5: defaults.ticks: a list of {from = ..., tick = ...}"),
        ("tick = 0.05}", "tick = 0.005}", "line 5: defaults.ticks: a number of rupees above zero"),
        ("},\n]", "},\n{from = 250, tick = 1}]", "line 5: defaults.ticks: the bands ascend"),
        ("tick = 1\n", "tick = 1\nticks = []\n", "line 18: symbols.nse:m&m.ticks: there is a tick already"),
        ("symbols.SBI]", 'symbols."S B"]', "line 12: symbols.S B: a symbol is 1 to 20"),
        ('symbols."nse:m&m"]', "symbols.SBIN]", "line 16: symbols.SBIN: SBIN is there already, by another of its"),
        ('symbols."nse:m&m"]', 'symbols."\\u001b[2J"]', "line 16: symbols.\\x1b[2J: a symbol is"),
        ("[symbols.SBI]\nreference_price = 885\nlot = 25", "[symbols]\nSBI = 5", "line 13: symbols.SBI: a table"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_key(old: str, new: str, cause: str) -> None:
    """Unknown, doubled, mistyped, out of range or contradictory: the place is named, and nothing is guessed."""
    assert FULL.count(old) >= 1
    assert refused(FULL.replace(old, new, 1)).startswith(cause)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ("", "version: 1 to 32 letters"),
        ('version = "1"', "symbols: a file without [defaults] names the symbols that are traded"),
        ('version = "1"\nsymbols = 5', "line 2: symbols: tables such as [symbols.SBIN]"),
        ('version = "1"\ndefaults = 5', "line 2: defaults: a table"),
        (b'version = "1"\n# \xff\n', "line 2: not UTF-8"),
        (b"\0", "line 1: \\x00: "),
        (b"#" * (MAX_FILE_BYTES + 1), "262145 bytes, the limit is 262144"),
        ('version = "1"\ndefaults.lot = ' + "9" * 5_000, "not TOML"),
        ('version = "1"\ndefaults.tick = 1e99999999999999999999', "not TOML"),
        ("x = " + "[" * 100_000, "not TOML"),
    ],
    ids=range(10),
)
def test_what_is_no_such_file_is_refused(data: str | bytes, cause: str) -> None:
    """Empty, of another encoding, far too large, or built to hurt the reader: a plain refusal."""
    assert refused(data).startswith(cause)
