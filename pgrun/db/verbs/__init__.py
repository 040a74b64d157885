"""Every verb of the database, one method per file of `sql/queries`: what goes in, what comes out.

Workers and agents speak to the queue through `Verbs` only. Rows are dicts with the names of the columns.
"""

from pgrun.db.verbs._journals import Journals
from pgrun.db.verbs._operates import Operates
from pgrun.db.verbs._schedules import Schedules
from pgrun.db.verbs._streams import Streams
from pgrun.db.verbs._submits import Submits
from pgrun.db.verbs._works import Works


class Verbs(Submits, Works, Journals, Streams, Schedules, Operates):
    """The transitions and looks of one database in one event loop."""
