"""Units of measurement and currencies: their names, dimensions and factors to a base unit.

A name that is spelt in capitals on purpose (`MW` and `mW`) is looked up as written first. Currencies are dimensions of
their own, because no exchange rate is certain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A unit."""

    dimension: str
    """What it measures; quantities of different dimensions are never equal."""
    factor: Fraction
    """Base units in one of it."""
    offset: Fraction = Fraction(0)
    """Base units at zero of it; 0 except for temperatures."""


def _table(text: str) -> dict[str, Unit]:
    found: dict[str, Unit] = {}
    for line in text.strip().splitlines():
        dimension, factor, offset, names = (part.strip() for part in line.split("|"))
        unit = Unit(dimension, Fraction(factor), Fraction(offset))
        found |= {name.strip().replace("_", " "): unit for name in names.split()}
    return found


UNITS = _table("""
length | 1 | 0 | m meter meters metre metres 米 公尺 メートル mètre mètres metro metros
length | 1000 | 0 | km kms kilometer kilometers kilometre kilometres 公里 千米 キロメートル キロ kilomètre kilomètres
length | 0.01 | 0 | cm centimeter centimeters centimetre centimetres 厘米 センチ センチメートル
length | 0.001 | 0 | mm millimeter millimeters millimetre millimetres 毫米 ミリメートル
length | 0.000001 | 0 | µm μm micrometer micrometers micrometre micrometres micron microns
length | 0.000000001 | 0 | nm nanometer nanometers nanometre nanometres
length | 0.0254 | 0 | in inch inches "
length | 0.3048 | 0 | ft foot feet '
length | 0.9144 | 0 | yd yds yard yards
length | 1609.344 | 0 | mi mile miles
length | 1852 | 0 | nmi nautical_mile nautical_miles
length | 149597870700 | 0 | au AU astronomical_unit astronomical_units
length | 9460730472580800 | 0 | ly light_year light_years lightyear lightyears
mass | 1 | 0 | g gram grams gramme grammes 克
mass | 1000 | 0 | kg kgs kilo kilos kilogram kilograms kilogramme kilogrammes 公斤 千克 キログラム
mass | 0.001 | 0 | mg milligram milligrams 毫克
mass | 0.000001 | 0 | µg μg mcg microgram micrograms
mass | 1000000 | 0 | t tonne tonnes metric_ton metric_tons 吨 トン
mass | 453.59237 | 0 | lb lbs pound pounds
mass | 28.349523125 | 0 | oz ounce ounces
mass | 6350.29318 | 0 | stone
time | 1 | 0 | s sec secs second seconds 秒
time | 0.001 | 0 | ms msec millisecond milliseconds 毫秒
time | 0.000001 | 0 | µs μs microsecond microseconds
time | 0.000000001 | 0 | ns nanosecond nanoseconds
time | 60 | 0 | min mins minute minutes 分 分钟 分鐘
time | 3600 | 0 | h hr hrs hour hours 小时 小時 時間
time | 86400 | 0 | d day days 天
time | 604800 | 0 | week weeks wk wks
months | 1 | 0 | month months 个月 ヶ月
months | 12 | 0 | yr yrs year years
months | 120 | 0 | decade decades
months | 1200 | 0 | century centuries
temperature | 1 | 273.15 | °C ℃ deg_C celsius degrees_celsius degree_celsius degrees_centigrade degrees_C 摄氏度 度
temperature | 5/9 | 45967/180 | °F ℉ deg_F fahrenheit degrees_fahrenheit degree_fahrenheit degrees_F 华氏度
temperature | 1 | 0 | K kelvin kelvins
angle | 1 | 0 | ° degree degrees deg
area | 1 | 0 | m^2 m2 sqm sq_m square_meter square_meters square_metre square_metres 平方米
area | 1000000 | 0 | km^2 km2 sqkm sq_km square_kilometer square_kilometers square_kilometre square_kilometres 平方公里
area | 0.0001 | 0 | cm^2 cm2 sq_cm square_centimeter square_centimeters square_centimetre square_centimetres
area | 10000 | 0 | ha hectare hectares 公顷
area | 4046.8564224 | 0 | acre acres
area | 0.09290304 | 0 | ft^2 ft2 sq_ft sqft square_foot square_feet
area | 2589988.110336 | 0 | mi^2 mi2 sq_mi square_mile square_miles
volume | 0.001 | 0 | l L liter liters litre litres 升 リットル
volume | 0.000001 | 0 | ml mL milliliter milliliters millilitre millilitres cm^3 cm3 cc cubic_centimeter cubic_centimeters 毫升
volume | 1 | 0 | m^3 m3 cubic_meter cubic_meters cubic_metre cubic_metres 立方米
volume | 1000000000 | 0 | km^3 km3 cubic_kilometer cubic_kilometers cubic_kilometre cubic_kilometres
volume | 0.028316846592 | 0 | ft^3 ft3 cu_ft cubic_foot cubic_feet
speed | 1 | 0 | m/s mps meters_per_second metres_per_second meter_per_second metre_per_second
speed | 5/18 | 0 | km/h kmh kph kmph kilometers_per_hour kilometres_per_hour
speed | 1000 | 0 | km/s kilometers_per_second kilometres_per_second
speed | 0.44704 | 0 | mph mi/h miles_per_hour
speed | 463/900 | 0 | kn knot knots
power | 1 | 0 | W watt watts
power | 1000 | 0 | kW kilowatt kilowatts
power | 1000000 | 0 | MW megawatt megawatts
power | 1000000000 | 0 | GW gigawatt gigawatts
power | 0.001 | 0 | mW milliwatt milliwatts
energy | 1 | 0 | J joule joules
energy | 1000 | 0 | kJ kilojoule kilojoules
energy | 1000000 | 0 | MJ megajoule megajoules
energy | 3600000 | 0 | kWh kilowatt_hour kilowatt_hours
pressure | 1 | 0 | Pa pascal pascals
pressure | 1000 | 0 | kPa kilopascal kilopascals
pressure | 100 | 0 | hPa mbar millibar millibars hectopascal hectopascals
pressure | 100000 | 0 | bar bars
pressure | 101325 | 0 | atm atmosphere atmospheres
frequency | 1 | 0 | Hz hertz
frequency | 1000 | 0 | kHz kilohertz
frequency | 1000000 | 0 | MHz megahertz
frequency | 1000000000 | 0 | GHz gigahertz
voltage | 1 | 0 | V volt volts
voltage | 1000 | 0 | kV kilovolt kilovolts
voltage | 0.001 | 0 | mV millivolt millivolts
bytes | 1 | 0 | B byte bytes
bytes | 1000 | 0 | kB KB kilobyte kilobytes
bytes | 1000000 | 0 | MB megabyte megabytes
bytes | 1000000000 | 0 | GB gigabyte gigabytes
bytes | 1000000000000 | 0 | TB terabyte terabytes
bits | 1 | 0 | bit bits
bits | 1000 | 0 | kb kbit kilobit kilobits
bits | 1000000 | 0 | Mb Mbit megabit megabits
bits | 1000000000 | 0 | Gb Gbit gigabit gigabits
percent | 1 | 0 | % percent per_cent pct ％ 百分之
USD | 1 | 0 | $ US$ USD dollar dollars US_dollar US_dollars 美元 ドル
USD | 0.01 | 0 | ¢ cent cents
EUR | 1 | 0 | € EUR euro euros 欧元 ユーロ
GBP | 1 | 0 | £ GBP pound_sterling pounds_sterling British_pounds 英镑
JPY | 1 | 0 | JPY yen Japanese_yen 円 日元
CNY | 1 | 0 | CNY RMB yuan renminbi 元 人民币
INR | 1 | 0 | ₹ INR rupee rupees Indian_rupees
CHF | 1 | 0 | CHF Swiss_franc Swiss_francs
CAD | 1 | 0 | CAD C$ CA$ Canadian_dollar Canadian_dollars
AUD | 1 | 0 | AUD A$ AU$ Australian_dollar Australian_dollars
yen or yuan | 1 | 0 | ¥
""")
"""Units by name, in the case in which they are written."""
READINGS = {"pound": ("GBP",), "pounds": ("GBP",)}
"""Further dimensions of names with several meanings; `£5` is 5 pounds, and so is 2.27 kg."""
_FOLDED: dict[str, set[Unit]] = {}
for _name, _unit in UNITS.items():
    _FOLDED.setdefault(_name.casefold(), set()).add(_unit)
PREFIXES = (
    "US$",
    "C$",
    "CA$",
    "A$",
    "AU$",
    "$",
    "€",
    "£",
    "¥",
    "₹",
    "USD",
    "EUR",
    "GBP",
    "JPY",
    "CNY",
    "RMB",
    "CHF",
    "CAD",
    "AUD",
)
"""Currencies that are written before the amount."""


def find(name: str) -> tuple[Unit, ...]:
    """The units of a name; none for an unknown one, and for one whose case decides but is neither.

    >>> find("MW") != find("mW"), find("Kilometres") == find("km"), find("Mw"), find("Mm")
    (True, True, (), ())
    """
    name = re.sub(r"[\s-]+", " ", name.strip()).removesuffix(".")
    found = (UNITS[name],) if name in UNITS else tuple(_FOLDED.get(name.casefold(), ()))
    if len(found) != 1 or (name not in UNITS and has_other_prefix(name)):
        return ()
    more = READINGS.get(name.casefold(), ())
    return found + tuple(Unit(dimension, Fraction(1)) for dimension in more)


def has_other_prefix(name: str) -> bool:
    """Whether a name is that of a unit but for the case of its metric prefix, which makes milli mega or the reverse.

    Not for bits and bytes, which have no thousandth; `mhz` and `MM` are no symbols, so their case says nothing.

    >>> [has_other_prefix(each) for each in ("Mm", "mHz", "mhz", "MM", "Min", "mbit")]
    [True, True, False, False, False, False]
    """
    known, base = UNITS.get(name[:1].swapcase() + name[1:]), UNITS.get(name[1:])
    if name[:1] not in ("m", "M") or known is None or base is None:
        return False
    return known.dimension == base.dimension and known.dimension not in ("bits", "bytes")
