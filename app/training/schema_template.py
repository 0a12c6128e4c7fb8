"""A commented features.yaml to begin with, where there is no file yet to propose one for."""

TEMPLATE = """\
# What the model reads, for a table of impressions such as clicks.csv: a row for each item that was shown.
#
#   user_id,age,likes,item_id,brand,tags,price,device,clicked,at
#   7,34,red,1001,acme,new|sale,19.90,app,1,2026-11-01T10:15:00
#
# This is an example: put your own columns in its place, or have a proposal made of your file: ctr new DIR --data FILE.
# Every key: docs/features.md. The label (clicked) and the time (at) are no fields; `ctr train` is told of them.
version: 1
fields:
  # entity says whose the field is, and so where it comes from: user and item are stored in Redis, by `ctr load` or
  # `ctr train --load`; context comes with each request. Nothing may be a field that is not known before the click.

  # The id of each side: taken from the request, and a feature of its own.
  - {name: user_id, entity: user, type: categorical, id: true}

  # A number. buckets: its quantiles are embedded too, so that the model may learn any curve.
  - {name: age, entity: user, type: numeric, buckets: 8}

  # A category. Two fields of one space share what is learned: a colour that is liked, and that an item has.
  - {name: likes, entity: user, type: categorical, space: colour}

  # Of the request, and not of the user: it changes from one to the next.
  - {name: device, entity: context, type: categorical}

  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: brand, entity: item, type: categorical}

  # Several categories, here divided by | in the file; in JSON lines and Parquet a list.
  - {name: tags, entity: item, type: multi_categorical, separator: "|", max_length: 8}

  # Most prices are small and some large: log1p first. source reads a column of another name, missing counts as none.
  - {name: item_price, source: price, entity: item, type: numeric, transforms: [log1p, standardise], buckets: 10,
     missing: ["-1"]}
"""
DATA, LABEL, TIMESTAMP = "clicks.csv", "clicked", "at"
"""The file of the example, its label and its time."""
EXAMPLE_IDS = "7", ("1001", "1002", "1003")
"""A user and items of the example."""
EXAMPLE_CONTEXT = {"device": "app"}
