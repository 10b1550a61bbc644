"""The sample files that tests load: fixed, clean and dirty, of every dataset that comes with the platform.

`weather/seattle.csv` holds the 1,461 days of 2012 to 2015 at Seattle: real observations by NOAA, the weather service of the
USA, in the public domain. All others are invented. `weather/dirty.csv` has 64 records of three stations, 28 of them to be
rejected: it breaks every rule at least once, short of a field over 1 MB, among rows that are merely untidy (spaces, an extra
column, a quoted line break, a measurement that is corrected on the next line). In each `dirty` file nearly every way to break
a rule occurs once. `customers/nested.json` has twelve customers of `customers.csv` again, as nested objects: they change
nothing. `records/page.json` is a page as the API of that dataset sends it.
"""

from pathlib import Path

SAMPLE_FILES = Path(__file__).parents[1] / "samples"
"""The folder of these files, with a folder of each dataset in it."""
