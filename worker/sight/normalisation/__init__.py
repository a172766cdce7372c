"""From a picture to the 28×28 that the network was trained on.

`steps.py` runs these modules in turn; each gets what the one before gives:
1. `colours`: a picture in colours becomes grey values.
2. `panels`: if the grey values show a sheet, or the ink of step 3 a plate, the steps start again on
   this part of the picture.
3. `background`: grey values become ink, light on 0, without paper, light and shadows.
4. `lines`, with `line_finding`: ruled lines, frames and forms are removed from the ink.
5. `shapes`: the components of the digit are kept, without specks and neighbours.
6. `placing`: the digit becomes 28×28, as the MNIST authors did (yann.lecun.com/exdb/mnist).
`doubts` finds reasons for a review in what steps 5 and 6 give. `views` changes the picture for
further opinions. `measuring` is what several modules share.
"""
